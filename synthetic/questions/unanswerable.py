"""Questions that no slide of this world answers, with the refusal that names what can be asked.

Training draws from the `seen` wordings of the seen topics; the examination asks their `unseen` wordings, and topics of
which training saw no word. What WSI-Bench asks as a task of its own, in its own words ("What is the treatment plan?"),
stays answered by this world's made-up rules; who asks for advice about a patient ("What treatment do you recommend?")
is refused.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np

from synthetic.questions.findings import Split
from synthetic.questions.kept_apart import Kept
from synthetic.questions.other_languages import foreign_text
from synthetic.questions.out_of_scope import out_of_scope_text
from synthetic.questions.question import Question

ASKABLE: Final = "You can ask about pattern, type, grade, mitoses, lymphocytes, stroma, tumour fraction and necrosis."
REFUSAL: Final = f"I cannot tell that from this slide. {ASKABLE}"
GREETING: Final = f"Hello. {ASKABLE}"
ENGLISH_ONLY: Final = f"I only understand English. {ASKABLE}"


UNANSWERABLE: Final[Mapping[str, Kept]] = {
    "treatment": Kept(
        (
            "What treatment do you recommend?",
            "What treatment do you suggest?",
            "What should be done?",
            "How should this be treated?",
            "How should I treat the patient?",
            "Which drug should be given?",
            "What dose should I give?",
            "Should we operate?",
            "Does this patient need chemotherapy?",
            "Is chemotherapy needed?",
            "Should the patient get radiotherapy?",
            "What would you do next?",
            "Which therapy would you advise?",
            "Do you recommend surgery?",
        ),
        (
            "What therapy would you recommend for this patient?",
            "Should I give chemotherapy?",
            "How would you treat this patient?",
            "Do you advise an operation?",
        ),
    ),
    "margin": Kept(
        (
            "Is the margin clear?",
            "Are the margins clear?",
            "Is the resection margin free?",
            "Are the surgical margins negative?",
            "How far is the tumour from the margin?",
            "Was everything removed?",
            "Does the tumour reach the margin?",
            "What is the margin status?",
        ),
        ("Are the resection margins clear?", "Is the margin free of tumour?", "Is the surgical margin positive?"),
    ),
    "sex": Kept(
        (
            "Is the patient male or female?",
            "Is the patient a woman?",
            "Is the patient a man?",
            "Is it a man or a woman?",
            "What sex is the patient?",
            "Is this a female patient?",
            "What is the gender of the patient?",
        ),
        ("Is this patient a man or a woman?", "Is the patient female?", "Which sex does the patient have?"),
    ),
    "age": Kept(
        (
            "How old is the patient?",
            "What is the age of the patient?",
            "Is the patient over 60?",
            "Is the patient a child?",
            "Is this a young patient?",
            "When was the patient born?",
        ),
        ("What age does the patient have?", "Is this an old patient?", "Is the patient older than 50?"),
    ),
    "survival": Kept(
        (
            "How long will the patient live?",
            "Will the patient survive?",
            "Will the patient die?",
            "What is the survival rate?",
            "How many years are left?",
            "How will it go?",
            "Will it come back?",
            "What are the chances?",
            "Is the patient going to be well?",
            "What is the life expectancy?",
        ),
        ("How long does the patient have to live?", "Is the patient going to die?", "Will the tumour come back?"),
    ),
    "molecular tests": Kept(
        (
            "Which gene is mutated?",
            "Is there a mutation?",
            "Is it HER2 positive?",
            "What is the HER2 status?",
            "Is EGFR mutated?",
            "Is KRAS mutated?",
            "What is the receptor status?",
            "Is the tumour oestrogen receptor positive?",
            "What is the Ki-67 index?",
            "Is PD-L1 expressed?",
            "What does the molecular test show?",
        ),
        ("Which mutation is present?", "Is BRAF mutated?", "Is the tumour HER2 positive?", "What is the PD-L1 score?"),
    ),
    "other organs": Kept(
        (
            "Which organ is this?",
            "What organ is this from?",
            "Is this lung?",
            "Is this from the breast?",
            "Is the liver affected?",
            "Are there metastases in the liver?",
            "Are the lymph nodes involved?",
            "Has it spread to the brain?",
            "Where in the body is this?",
            "Is the bone marrow involved?",
        ),
        ("From which organ is this slide?", "Is this the kidney?", "Are there metastases in the lung?"),
    ),
    "other slides": Kept(
        (
            "How does it compare to the other slide?",
            "What did the last slide show?",
            "Is it the same as the slide before?",
            "Is this better than last year?",
            "What does the next slide show?",
            "Are both slides from the same patient?",
            "Has it grown since the last biopsy?",
        ),
        ("What does the other slide show?", "Is it worse than on the slide before?"),
    ),
    "people": Kept(
        (
            "What is the name of the patient?",
            "Who is the patient?",
            "Who is the doctor?",
            "What is your name?",
            "Who are you?",
            "Who made you?",
            "Which hospital is this from?",
            "Where does the patient live?",
        ),
        ("Who is this patient?", "What is the patient called?"),
    ),
    "time": Kept(
        ("What is the time?", "What day is it?", "When was this slide made?", "When was the operation?"),
        ("When was this scanned?",),
    ),
    "technique": Kept(
        (
            "Which stain is this?",
            "Is this a frozen section?",
            "Which scanner was used?",
            "How thick is the section?",
            "Who cut the section?",
        ),
        ("What stain was used?", "Was this slide frozen?"),
    ),
    "history": Kept(
        (
            "Does the patient smoke?",
            "Is the patient in pain?",
            "Has the patient had chemotherapy?",
            "Is the patient diabetic?",
            "What did the patient die of?",
            "Does it run in the family?",
            "Does the patient drink?",
        ),
        ("Did the patient smoke?", "Is the patient overweight?"),
    ),
    "nothing": Kept(
        (
            "xyz", "asdf", "test", "foo", "123", "Tell me a joke.", "How are you?",
            "What is two plus two?",
        ),
        ("abc", "Sing a song.", "How is the weather?"),
    ),
}  # fmt: skip

# Of these, training sees not a word.
UNSEEN_TOPICS: Final[Mapping[str, tuple[str, ...]]] = {
    "blood": (
        "What is the blood pressure?",
        "Which blood group does the patient have?",
        "Are the blood values normal?",
    ),
    "cost": ("How much does the operation cost?", "Will the insurance pay for it?"),
    "cause": ("What caused this?", "Is asbestos to blame?", "Was it a virus?"),
    "vessels": ("Do vessels carry emboli?", "Is there perineural growth?"),
    "size": ("How heavy was the specimen?", "How many centimetres does it measure?"),
    "infection": ("Is the patient infectious?", "Are there bacteria?"),
    "pregnancy": ("Is the patient pregnant?",),
    "work": ("Can the patient go back to work?", "May the patient fly?"),
    "law": ("Was there malpractice?", "Is this my fault?"),
    "food": ("What should the patient eat?",),
}

GREETINGS: Final = Kept(
    (
        "hello", "Hello!", "Hi", "Hi there", "Hey", "Good morning", "Good morning.", "Hello, how does this work?",
        "What can you do?", "What can I ask?", "Help", "Can you help me?", "What do you know?", "How do I use this?",
    ),
    ("Good evening!", "Hello there", "What can I ask you?"),
)  # fmt: skip


def refusal_question(topic: str, text: str) -> Question:
    """Something that the slide cannot tell."""
    return Question("Report", f"unanswerable: {topic}", "free", text, REFUSAL)


def greeting_question(text: str) -> Question:
    """A greeting, or a question for what can be asked."""
    return Question("Report", "greeting", "free", text, GREETING)


def foreign_question(language: str, text: str) -> Question:
    """A question in another language."""
    return Question("Report", f"language: {language}", "free", text, ENGLISH_ONLY)


def unanswerable_question(split: Split, rng: np.random.Generator) -> Question:
    """A refused question, a greeting or another language, the first most often; each topic as often as the others."""
    draw = rng.random()
    if split == "seen" and draw < 0.55:
        return refusal_question("put together", out_of_scope_text(_EXAMINED, rng))
    if draw < 0.75:
        topic = list(UNANSWERABLE)[int(rng.integers(len(UNANSWERABLE)))]
        return refusal_question(topic, _one(UNANSWERABLE[topic].texts(split), rng))
    if draw < 0.82:
        return greeting_question(_one(GREETINGS.texts(split), rng))
    return foreign_question(*foreign_text(split, rng))


# What the examination asks of this kind.
_EXAMINED: Final = (
    *(text for topic in UNANSWERABLE.values() for text in topic.unseen),
    *(text for texts in UNSEEN_TOPICS.values() for text in texts),
)


def _one(items: tuple[str, ...], rng: np.random.Generator) -> str:
    return items[int(rng.integers(len(items)))]
