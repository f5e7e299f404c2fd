"""Questions in a stranger's words: written without sight of training's, or of the other examination's.

A general language model wrote them once, for what pathologists, residents, engineers and newcomers might type; no
person did. No sentence of training was changed after a model had been asked them. Some are training's sentences all
the same, as some of anybody's would be; nothing is done about that.
"""

from collections.abc import Mapping
from typing import Final

# By finding: answered Yes exactly if it holds; then those that the opposite answers.
FINDINGS: Final[Mapping[str, tuple[str, ...]]] = {
    "tumour": (
        "Does this section contain malignant tissue?",
        "Can you make out any neoplastic growth here?",
        "Would you call this slide positive for carcinoma?",
        "Are cancer cells visible anywhere in this field?",
        "Has a neoplasm been captured in this biopsy?",
        "Please tell me whether we are looking at cancer.",
        "Do you see malignancy on this H&E?",
        "Tumour present, yes or no?",
    ),
    "necrosis": (
        "Has any part of this tissue undergone necrosis?",
        "Do you notice dead, necrotic areas on the slide?",
        "Can necrotic debris be identified in this image?",
        "Are necrotic foci seen, however small?",
        "Does the specimen show cell death of the necrotic sort?",
        "Would you report necrosis in this case?",
        "Tell me if even a little necrosis can be found.",
        "Any necrosis at all?",
    ),
    "many mitoses": (
        "Are mitotic figures frequent?",
        "Do the cells divide briskly in this field?",
        "Would you describe the mitotic activity as high?",
        "Does one come across plenty of mitoses here?",
        "Is the mitotic count raised?",
        "Can numerous dividing nuclei be seen?",
        "Tell me whether mitoses are abundant.",
        "Lots of mitotic figures on this one?",
    ),
    "many lymphocytes": (
        "Is the lymphocytic infiltrate dense?",
        "Are there lymphocytes in large numbers?",
        "Does the stroma teem with lymphoid cells?",
        "Would you call the lymphocyte response heavy?",
        "Do you find abundant tumour-infiltrating lymphocytes?",
        "Has the tissue been richly infiltrated by lymphocytes?",
        "Can a brisk lymphoid reaction be appreciated?",
        "Say whether TILs are plentiful, please.",
    ),
    "grade": (
        "What grade would you assign to this tumour?",
        "How would you grade the nuclei?",
        "Which histological grade fits best?",
        "Please give me the nuclear grade.",
        "On a grading scale, where does this lesion fall?",
        "Low, intermediate or high grade: which one?",
        "Could you grade this carcinoma for me?",
        "How well or poorly differentiated, in terms of grade, is it?",
    ),
}
NEGATED: Final[Mapping[str, tuple[str, ...]]] = {
    "tumour": (
        "Is the tissue entirely benign?",
        "Can I sign this one out as free of tumour?",
        "Would you agree that no malignancy is seen here?",
        "Does the sample lack any cancerous cells?",
    ),
    "necrosis": (
        "Is necrosis absent from this section?",
        "Can we say the tissue is free of necrosis?",
        "Does the slide show no necrotic areas whatsoever?",
        "Would you describe everything here as viable, without necrosis?",
    ),
    "many mitoses": (
        "Are mitoses few and far between?",
        "Is mitotic activity low in this tissue?",
        "Would you say dividing cells are rare here?",
        "Does the slide show only scarce mitotic figures?",
    ),
    "many lymphocytes": (
        "Are lymphocytes sparse in this section?",
        "Is the lymphoid infiltrate only scanty?",
        "Would you describe the TILs as few?",
        "Does the slide show hardly any lymphocytes?",
    ),
}
UNANSWERABLE: Final[Mapping[str, tuple[str, ...]]] = {
    "treatment": (
        "Should we start her on chemotherapy next week?",
        "Which drug would help this patient most?",
        "Would you recommend radiotherapy after the operation?",
    ),
    "margin": (
        "Did the surgeon get it all out?",
        "How many millimetres to the nearest resection margin?",
        "Are the inked edges clear?",
    ),
    "sex": (
        "Does this sample come from a man or a woman?",
        "Was the patient female?",
        "What is the sex of the donor?",
    ),
    "age": (
        "How old is the patient?",
        "Is this person over sixty?",
        "In which year was the patient born?",
    ),
    "survival": (
        "How long has he got to live?",
        "What is the five-year survival for this patient?",
        "Will she still be alive at Christmas next year?",
    ),
    "molecular tests": (
        "Is the tumour HER2 positive?",
        "Does it carry a KRAS mutation?",
        "What did the microsatellite instability PCR show?",
    ),
    "other organs": (
        "Has it spread to the liver?",
        "Are the lungs affected as well?",
        "What do the patient's kidneys look like?",
    ),
    "other slides": (
        "Does block B3 show the same thing?",
        "How does this compare with the previous biopsy?",
        "What was seen on the frozen section yesterday?",
    ),
    "people": (
        "Who signed out this case?",
        "Which surgeon sent us the specimen?",
        "What is the name of the patient's consultant?",
    ),
    "time": (
        "When was this biopsy taken?",
        "How many hours did the sample sit in formalin?",
        "On what date will the report be released?",
    ),
    "technique": (
        "Which scanner was used to digitise the slide?",
        "What brand of haematoxylin is this?",
        "What temperature was the paraffin bath set to?",
    ),
    "history": (
        "Does the patient smoke?",
        "Was there any previous cancer in the family?",
        "What symptoms brought him to the clinic?",
    ),
    "nothing": (
        "Do you fancy a cup of tea?",
        "Blue seven sings under the spoon?",
        "Good morning, how was your weekend?",
    ),
}
# Chosen likewise, without knowledge of training's topics.
TOPICS: Final[Mapping[str, tuple[str, ...]]] = {
    "cost": (
        "How much did this examination cost the hospital?",
        "Will the insurer reimburse the biopsy?",
    ),
    "weather": (
        "Is it going to rain in Leeds tomorrow?",
        "How hot was it outside at noon?",
    ),
    "blood results": (
        "What is the patient's haemoglobin?",
        "Has the PSA level risen since spring?",
    ),
    "radiology": (
        "What did the CT scan reveal?",
        "Was the lesion bright on the T2-weighted MRI?",
    ),
    "geography": (
        "In which country was this specimen collected?",
        "Which hospital does the slide belong to?",
    ),
    "diet and lifestyle": (
        "Does the patient eat a lot of red meat?",
        "How often does she exercise?",
    ),
    "mood and consent": (
        "Did the patient consent to research use?",
        "Is he anxious about the result?",
    ),
    "IT and equipment": (
        "Why does the viewer software keep freezing?",
        "How large is the image file in gigabytes?",
    ),
}
# Each with the finding that it asks for, "place" of necrosis, or nothing that one sentence answers.
LANGUAGES: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    "German": (
        ("Sieht man auf diesem Schnitt einen Tumor?", "tumour"),
        ("Liegt hier ein bösartiges Gewächs vor?", "tumour"),
        ("Wo befindet sich die Nekrose?", "place"),
        ("Gibt es viele Mitosen?", "many mitoses"),
        ("Welchen Grad hat der Tumor?", "grade"),
        ("Wie alt ist die Patientin?", ""),
    ),
    "French": (
        ("Y a-t-il une tumeur sur cette lame ?", "tumour"),
        ("Où se trouve la nécrose ?", "place"),
        ("Dans quelle partie de l'image voit-on la nécrose ?", "place"),
        ("Les mitoses sont-elles nombreuses ?", "many mitoses"),
        ("Quel est le grade nucléaire ?", "grade"),
        ("Quel traitement faut-il proposer au patient ?", ""),
    ),
    "Spanish": (
        ("¿Se observa algún tumor en esta muestra?", "tumour"),
        ("¿Dónde está la necrosis?", "place"),
        ("¿Son frecuentes las mitosis?", "many mitoses"),
        ("¿Ve usted muchas figuras mitóticas?", "many mitoses"),
        ("¿Qué grado histológico tiene el tumor?", "grade"),
        ("¿Cómo es el estroma en esta preparación?", ""),
    ),
    "Italian": (
        ("Questo vetrino mostra un tumore?", "tumour"),
        ("Dove si trova la necrosi?", "place"),
        ("Qual è il grado del tumore?", "grade"),
    ),
    "Portuguese": (
        ("Há algum tumor nesta lâmina?", "tumour"),
        ("As mitoses são numerosas?", "many mitoses"),
        ("Qual é o grau nuclear da neoplasia?", "grade"),
    ),
    "Japanese": (
        ("この標本に腫瘍はありますか?", "tumour"),
        ("壊死はどこにありますか?", "place"),
        ("核分裂像は多いですか?", "many mitoses"),
    ),
}
REPORTS: Final = (
    "Please write up the full pathology report for this slide.",
    "Could you dictate a complete histology report?",
    "I need the whole microscopic description with a diagnosis.",
    "Draft a structured report covering every finding, please.",
    "Summarise everything you see as a formal pathology report.",
    "Report this case for me from top to bottom.",
)
DOUBTS: Final = (
    "I'm not convinced by that.",
    "Really? Have another look, please.",
    "My colleague would not agree with you there.",
    "That doesn't seem right to me.",
    "Are you quite sure you haven't misread the slide?",
    "I have my doubts about your last answer.",
    "Would you stake your reputation on it?",
    "Hmm, that surprises me; please double-check.",
)
