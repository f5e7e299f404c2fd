"""Topics of questions about a synthetic slide, each about one attribute of its truth.

The tasks are WSI-Bench's (arXiv 2412.02141; XinhengLyu/WSI-LLaVA, folder `dataset/`). Stage, subtype, treatment and
prognosis follow from one attribute each by rules made up for this synthetic world: they are not medicine.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from synthetic.slide_truth import QUADRANTS, SlideTruth

Task = Literal[
    "Global_Morphology_Description",
    "Key_Diagnostic_Description",
    "Regional_Structure_Description",
    "Specific_Feature_Description",
    "Histological_Typing",
    "Grading",
    "Molecular_Subtyping",
    "Staging",
    "Treatment_Planing",  # so spelt in WSI-Bench
    "Prognosis",
    "Report",
]
# Where a slide has nothing to grade, stage or locate.
NOTHING: Final = "none"


@dataclass(frozen=True)
class Topic:
    """One attribute as it is asked for and answered.

    `phrases` gives, for each value of the attribute, the words of an option and of an answer; no phrase of a topic
    contains another. `nouns` name what is asked for, `judged` what a phrase is said of ("the stroma is …").
    `answers` overrides `sentence` for a value.
    """

    name: str
    task: Task
    attribute: str
    phrases: Mapping[str, str]
    nouns: tuple[str, ...]
    judged: tuple[str, ...]
    sentence: str
    answers: Mapping[str, str] = field(default_factory=dict)

    def value(self, truth: SlideTruth) -> str:
        """The truth's value, a key of `phrases`."""
        value = getattr(truth, self.attribute)
        return NOTHING if value is None else str(value)

    def phrase(self, truth: SlideTruth) -> str:
        """The words of the right option."""
        return self.phrases[self.value(truth)]

    def answer(self, truth: SlideTruth) -> str:
        """The sentence that answers an open question."""
        value = self.value(truth)
        return self.answers.get(value, self.sentence.format(self.phrases[value]))


def _same(*values: str) -> dict[str, str]:
    return {value: value for value in values}


PATTERN: Final = Topic(
    name="pattern",
    task="Global_Morphology_Description",
    attribute="pattern",
    phrases=_same("glandular", "solid", "keratinising", "papillary", "lymphoid", "benign"),
    nouns=("growth pattern", "tissue pattern", "architecture", "architectural pattern", "pattern of growth", "pattern"),
    judged=("growth pattern", "tissue pattern", "architecture", "pattern"),
    sentence="The growth pattern is {}.",
)
TYPING: Final = Topic(
    name="histological type",
    task="Histological_Typing",
    attribute="pattern",
    phrases={
        "glandular": "adenocarcinoma",
        "solid": "undifferentiated carcinoma",
        "keratinising": "squamous carcinoma",
        "papillary": "papillary carcinoma",
        "lymphoid": "lymphoma",
        "benign": "normal tissue",
    },
    nouns=("histological type", "diagnosis", "tumour type", "type of tumour", "histological diagnosis"),
    judged=("histological type", "diagnosis", "tumour type"),
    sentence="The diagnosis is {}.",
)
GRADE: Final = Topic(
    name="grade",
    task="Grading",
    attribute="grade",
    phrases={"1": "grade 1", "2": "grade 2", "3": "grade 3", NOTHING: "no grade"},
    nouns=("grade", "tumour grade", "histological grade", "nuclear grade", "grade of the tumour"),
    judged=("tumour", "lesion", "nuclear picture"),
    sentence="The tumour is {}.",
    answers={NOTHING: "There is no grade to give."},
)
MITOSES: Final = Topic(
    name="mitoses",
    task="Specific_Feature_Description",
    attribute="mitoses",
    phrases=_same("frequent", "rare"),
    nouns=("mitotic activity", "mitotic rate", "mitotic count", "frequency of mitoses", "amount of mitoses"),
    judged=("mitotic activity", "mitotic rate", "occurrence of mitoses"),
    sentence="Mitoses are {}.",
)
LYMPHOCYTES: Final = Topic(
    name="lymphocytes",
    task="Specific_Feature_Description",
    attribute="lymphocytes",
    phrases=_same("dense", "sparse"),
    nouns=("lymphocytic infiltrate", "density of lymphocytes", "amount of lymphocytes", "lymphocytes", "inflammation"),
    judged=("lymphocytic infiltrate", "infiltrate of lymphocytes", "inflammation"),
    sentence="The lymphocytes are {}.",
)
STROMA: Final = Topic(
    name="stroma",
    task="Regional_Structure_Description",
    attribute="stroma",
    phrases=_same("fibrous", "loose"),
    nouns=("stroma", "type of stroma", "kind of stroma", "connective tissue", "stromal texture"),
    judged=("stroma", "connective tissue", "stromal texture"),
    sentence="The stroma is {}.",
)
EXTENT: Final = Topic(
    name="tumour fraction",
    task="Global_Morphology_Description",
    attribute="extent",
    phrases={"none": "absent", "low": "low", "moderate": "moderate", "high": "high"},
    nouns=("tumour fraction", "share of tumour", "tumour content", "fraction of tumour", "proportion of tumour"),
    judged=("tumour fraction", "share of tumour", "tumour content"),
    sentence="The tumour fraction is {}.",
)
NECROSIS: Final = Topic(
    name="location of necrosis",
    task="Regional_Structure_Description",
    attribute="necrosis",
    phrases={**_same(*QUADRANTS), NOTHING: "not seen"},
    nouns=("location of the necrosis", "site of the necrosis", "place of the necrosis", "position of the necrosis"),
    judged=("necrosis", "necrotic area", "dead tissue"),
    sentence="The necrosis is in the {} quadrant.",
    answers={NOTHING: "Necrosis is not seen."},
)
STAGE: Final = Topic(
    name="stage",
    task="Staging",
    attribute="extent",
    phrases={"none": "no stage", "low": "early", "moderate": "intermediate", "high": "advanced"},
    nouns=("stage", "tumour stage", "stage of disease", "stage of the tumour"),
    judged=("stage", "tumour stage", "stage of disease"),
    sentence="The stage is {}.",
    answers={"none": "There is no stage to give."},
)
SUBTYPE: Final = Topic(
    name="molecular subtype",
    task="Molecular_Subtyping",
    attribute="lymphocytes",
    phrases={"dense": "hot", "sparse": "cold"},
    nouns=("molecular subtype", "immune subtype", "subtype", "immune class"),
    judged=("molecular subtype", "immune subtype", "subtype"),
    sentence="The subtype is immune {}.",
)
TREATMENT: Final = Topic(
    name="treatment",
    task="Treatment_Planing",
    attribute="grade",
    phrases={"1": "surgery", "2": "radiotherapy", "3": "chemotherapy", NOTHING: "observation"},
    nouns=("treatment", "treatment plan", "therapy", "management"),
    judged=("treatment", "best therapy", "recommended management"),
    sentence="The treatment is {}.",
)
PROGNOSIS: Final = Topic(
    name="prognosis",
    task="Prognosis",
    attribute="mitoses",
    phrases={"frequent": "poor", "rare": "good"},
    nouns=("prognosis", "outlook", "expected outcome", "likely outcome"),
    judged=("prognosis", "outlook", "expected outcome"),
    sentence="The prognosis is {}.",
)

# In the order in which a report goes through them.
ATTRIBUTES: Final = (PATTERN, GRADE, MITOSES, LYMPHOCYTES, STROMA, EXTENT, NECROSIS)
DERIVED: Final = (TYPING, STAGE, SUBTYPE, TREATMENT, PROGNOSIS)
TOPICS: Final = (*ATTRIBUTES, *DERIVED)
