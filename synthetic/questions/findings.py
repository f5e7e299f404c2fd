"""The five findings that a clinician asks about first, in many wordings, with what each slide's truth says of them.

Training draws from `seen`, the examination from `unseen`. What they share is the finding, never a whole sentence.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from synthetic.questions.composed import AFFIRMATIVE, FEW, MANY, NEGATED, SOME, composed
from synthetic.questions.composed import GRADE as GRADE_FRAMES
from synthetic.questions.question import Question
from synthetic.questions.topics import GRADE, LYMPHOCYTES, MITOSES, NECROSIS, PATTERN, Topic
from synthetic.slide_truth import SlideTruth

Split = Literal["seen", "unseen"]


@dataclass(frozen=True)
class Finding:
    """What is asked for. `holds` says whether an affirmative question is answered Yes; None asks for the value of
    `topic`. `seen`, `unseen`: affirmative questions; `negated_…`: questions that the opposite answers."""

    name: str
    topic: Topic
    holds: Callable[[SlideTruth], bool] | None
    seen: tuple[str, ...]
    unseen: tuple[str, ...]
    negated_seen: tuple[str, ...] = ()
    negated_unseen: tuple[str, ...] = ()
    # What holds, and what the opposite of it is called, for sentences that are put together; with its verb.
    named: tuple[tuple[str, str], ...] = ()
    opposite_named: tuple[tuple[str, str], ...] = ()
    # What there are many or few of.
    counted: tuple[str, ...] = ()

    def texts(self, split: Split, *, negated: bool = False) -> tuple[str, ...]:
        """The wordings of one side."""
        if negated:
            return self.negated_seen if split == "seen" else self.negated_unseen
        return self.seen if split == "seen" else self.unseen

    def question(self, truth: SlideTruth, text: str, *, negated: bool = False) -> Question:
        """The question in these words, with its true answer."""
        if self.holds is None:
            return Question(self.topic.task, self.topic.name, "free", text, self.topic.answer(truth))
        answer = "Yes" if self.holds(truth) != negated else "No"
        return Question(self.topic.task, self.name, "yes_no", text, answer)


TUMOUR: Final = Finding(
    "tumour",
    PATTERN,
    lambda truth: truth.pattern != "benign",
    seen=(
        "Is there a tumour?",
        "Is there a tumour on this slide?",
        "Is there any tumour here?",
        "Do you see a tumour?",
        "Can you see any tumour?",
        "Does this slide show a tumour?",
        "Does the tissue contain tumour?",
        "Is tumour present?",
        "Is there cancer?",
        "Is this cancer?",
        "Is it malignant?",
        "Do you see malignant tissue?",
        "Is any malignancy seen?",
        "Any tumour?",
        "Tumour present?",
        "Was a tumour found on this slide?",
        "Is there a tumor?",
        "Is there evidence of a tumour?",
        "Do we have a tumour here?",
        "Would you say there is a tumour?",
        "Does the patient have a tumour?",
        "Is a tumour visible in this image?",
    ),
    unseen=(
        "Is a tumour present on this slide?",
        "Can a tumour be seen here?",
        "Does this tissue show cancer?",
        "Could you tell me whether there is a tumour?",
        "Is there any sign of a tumour?",
        "Do you find a tumour?",
        "Does the slide contain a tumour?",
        "Is malignant tissue present?",
    ),
    negated_seen=(
        "Is there no tumour?",
        "Is the slide free of tumour?",
        "Is tumour absent?",
        "There is no tumour, right?",
        "Is this benign?",
        "Is this normal tissue?",
        "Is it harmless?",
        "Is everything normal?",
        "Is there no cancer?",
        "Is it true that there is no tumour?",
        "No tumour here, correct?",
    ),
    negated_unseen=("Is this tissue benign?", "Would you say there is no tumour?", "Is the tissue free of cancer?"),
    named=(
        ("tumour", "is"),
        ("a tumour", "is"),
        ("cancer", "is"),
        ("malignancy", "is"),
        ("malignant tissue", "is"),
        ("malignant cells", "are"),
        ("tumour cells", "are"),
        ("a cancer", "is"),
        ("tumor", "is"),
    ),
    opposite_named=(("only benign tissue", "is"), ("nothing but normal tissue", "is"), ("only healthy tissue", "is")),
)
NECROSIS_SEEN: Final = Finding(
    "necrosis",
    NECROSIS,
    lambda truth: truth.necrosis is not None,
    seen=(
        "Is there necrosis?",
        "Is there any necrosis?",
        "Is there necrosis on this slide?",
        "Is there necrosis here?",
        "Do you see necrosis?",
        "Can you see any necrosis?",
        "Is necrosis present?",
        "Is necrosis seen?",
        "Does this slide show necrosis?",
        "Does the tissue contain necrosis?",
        "Any necrosis?",
        "Necrosis present?",
        "Is there dead tissue?",
        "Do you see dead tissue?",
        "Are there necrotic areas?",
        "Is any of the tissue necrotic?",
        "Is there evidence of necrosis?",
        "Was necrosis found?",
        "Would you say there is necrosis?",
        "Is necrosis visible in this image?",
        "Tell me whether there is necrosis.",
    ),
    unseen=(
        "Is necrosis present on this slide?",
        "Can necrosis be seen here?",
        "Would this tissue be necrotic in part?",
        "Could you tell me whether there is necrosis?",
        "Is there any sign of necrosis?",
        "Do you find necrosis?",
        "Did the slide turn out to hold necrotic tissue?",
        "Have you noticed any necrosis?",
    ),
    negated_seen=(
        "Is there no necrosis?",
        "Is the slide free of necrosis?",
        "Is necrosis absent?",
        "There is no necrosis, right?",
        "Is it true that there is no necrosis?",
        "No necrosis here, correct?",
        "Is the tissue without necrosis?",
    ),
    negated_unseen=("Would you say there is no necrosis?", "Is the tissue free of necrosis?"),
    named=(
        ("necrosis", "is"),
        ("dead tissue", "is"),
        ("necrotic areas", "are"),
        ("a necrotic area", "is"),
        ("necrotic tissue", "is"),
        ("a focus of necrosis", "is"),
        ("tumour necrosis", "is"),
    ),
)
MITOSES_MANY: Final = Finding(
    "many mitoses",
    MITOSES,
    lambda truth: truth.mitoses == "frequent",
    seen=(
        "Are there many mitoses?",
        "Are mitoses frequent?",
        "Are there frequent mitoses?",
        "Do you see many mitoses?",
        "Can you see many mitoses?",
        "Is the mitotic rate high?",
        "Is the mitotic activity high?",
        "Is mitotic activity frequent?",
        "Do the cells divide a lot?",
        "Do the cells divide often?",
        "Are many cells dividing?",
        "Many mitoses?",
        "Does this slide show many mitoses?",
        "Are mitoses common here?",
        "Would you say mitoses are frequent?",
        "Are there a lot of mitoses?",
        "Is there a high mitotic count?",
    ),
    unseen=(
        "Are many mitoses present?",
        "Are mitoses frequent on this slide?",
        "Do you find many mitoses?",
        "Does this tissue show frequent mitoses?",
        "Could you tell me whether there are many mitoses?",
        "Is the number of mitoses high?",
        "Can many mitoses be seen here?",
        "Is there high mitotic activity?",
    ),
    negated_seen=(
        "Are mitoses rare?",
        "Are there few mitoses?",
        "Is the mitotic rate low?",
        "Do the cells hardly divide?",
        "Few mitoses?",
        "Are there only few mitoses?",
    ),
    negated_unseen=("Are mitoses rare on this slide?", "Is the number of mitoses low?"),
    named=(
        ("many mitoses", "are"),
        ("frequent mitoses", "are"),
        ("numerous mitoses", "are"),
        ("a lot of mitoses", "are"),
        ("many dividing cells", "are"),
        ("a high mitotic rate", "is"),
        ("high mitotic activity", "is"),
        ("plenty of mitotic figures", "are"),
    ),
    opposite_named=(
        ("few mitoses", "are"),
        ("only few mitoses", "are"),
        ("rare mitoses", "are"),
        ("a low mitotic rate", "is"),
        ("hardly any mitoses", "are"),
    ),
    counted=("mitoses", "mitotic figures", "dividing cells", "cell divisions"),
)
LYMPHOCYTES_MANY: Final = Finding(
    "many lymphocytes",
    LYMPHOCYTES,
    lambda truth: truth.lymphocytes == "dense",
    seen=(
        "Are there many lymphocytes?",
        "Are the lymphocytes dense?",
        "Are lymphocytes dense?",
        "Do you see many lymphocytes?",
        "Can you see many lymphocytes?",
        "Is the lymphocytic infiltrate dense?",
        "Is there a dense infiltrate?",
        "Is there dense inflammation?",
        "Is it inflamed?",
        "Many lymphocytes?",
        "Does this slide show many lymphocytes?",
        "Are lymphocytes numerous here?",
        "Would you say the lymphocytes are dense?",
        "Are there a lot of lymphocytes?",
        "Is the tissue heavily inflamed?",
    ),
    unseen=(
        "Are many lymphocytes present?",
        "Are the lymphocytes dense on this slide?",
        "Do you find many lymphocytes?",
        "Does this tissue show dense lymphocytes?",
        "Could you tell me whether there are many lymphocytes?",
        "Is the number of lymphocytes high?",
        "Can many lymphocytes be seen here?",
        "Is it a dense infiltrate of lymphocytes?",
    ),
    negated_seen=(
        "Are lymphocytes sparse?",
        "Are there few lymphocytes?",
        "Is the lymphocytic infiltrate sparse?",
        "Few lymphocytes?",
        "Are there only few lymphocytes?",
        "Is inflammation sparse?",
    ),
    negated_unseen=("Are the lymphocytes sparse on this slide?", "Is the number of lymphocytes low?"),
    named=(
        ("many lymphocytes", "are"),
        ("dense lymphocytes", "are"),
        ("numerous lymphocytes", "are"),
        ("a dense infiltrate", "is"),
        ("heavy inflammation", "is"),
        ("dense inflammation", "is"),
        ("a lot of lymphocytes", "are"),
    ),
    opposite_named=(
        ("few lymphocytes", "are"),
        ("only few lymphocytes", "are"),
        ("sparse lymphocytes", "are"),
        ("a sparse infiltrate", "is"),
        ("sparse inflammation", "is"),
    ),
    counted=("lymphocytes", "lymphoid cells", "inflammatory cells", "lymphocytic cells"),
)
GRADE_VALUE: Final = Finding(
    "grade",
    GRADE,
    None,
    seen=(
        "What grade is it?",
        "What grade is the tumour?",
        "What is the grade?",
        "Which grade?",
        "Which grade is the tumour?",
        "Which grade would you give?",
        "How would you grade this tumour?",
        "How would you grade it?",
        "Please grade the tumour.",
        "Grade the tumour.",
        "Grade?",
        "Tell me the grade.",
        "Give me the grade of this tumour.",
        "How bad do the nuclei look?",
        "What is the nuclear grade?",
        "I need the grade.",
        "Can you grade this?",
    ),
    unseen=(
        "What grade would you give this tumour?",
        "Could you tell me the grade?",
        "What is the grade of the tumour on this slide?",
        "Which grade does it have?",
        "Which nuclear grade is this?",
        "Please tell me which grade this tumour is.",
        "How is this tumour graded?",
        "What tumour grade would you write down?",
    ),
)
FINDINGS: Final = (TUMOUR, NECROSIS_SEEN, MITOSES_MANY, LYMPHOCYTES_MANY, GRADE_VALUE)


def finding_question(finding: Finding, truth: SlideTruth, split: Split, rng: np.random.Generator) -> Question:
    """In one of its wordings, a third of them negated where there are negated ones; as nobody in particular types.
    For training as often in words that are put together."""
    negated = bool(finding.negated_seen) and rng.random() < 1 / 3
    if split == "seen" and rng.random() < 0.5:
        return finding.question(truth, _put_together(finding, negated, rng), negated=negated)
    texts = finding.texts(split, negated=negated)
    return finding.question(truth, texts[int(rng.integers(len(texts)))], negated=negated)


def _put_together(finding: Finding, negated: bool, rng: np.random.Generator) -> str:
    apart = (*finding.unseen, *finding.negated_unseen)
    if finding.holds is None:
        return composed(GRADE_FRAMES, apart, rng)
    if finding.counted and rng.random() < 0.4:
        plural = finding.counted[int(rng.integers(len(finding.counted)))]
        return composed(FEW if negated else MANY, apart, rng, plural=plural)
    by_opposite = negated and bool(finding.opposite_named) and rng.random() < 0.5
    frames = NEGATED if negated and not by_opposite else AFFIRMATIVE if by_opposite else (*AFFIRMATIVE, *SOME)
    names = finding.opposite_named if by_opposite else finding.named
    if frames is NEGATED:  # "no necrosis", never "no a tumour"
        names = tuple(name for name in names if not name[0].startswith("a "))
    name, verb = names[int(rng.integers(len(names)))]
    has = "Has" if verb == "is" else "Have"
    return composed(frames, apart, rng, N=name, be=verb, Be=verb.capitalize(), Have=has)
