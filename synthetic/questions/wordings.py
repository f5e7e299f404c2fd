"""Wordings of questions. Training draws from `SEEN`; `UNSEEN` is kept for evaluation.

`{noun}` is what a topic asks for, `{judged}` what a phrase is said of, `{phrase}` the words of a value.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Wordings:
    """Frames of questions, by form; `formats` lay out the options of a multiple-choice question."""

    free: tuple[str, ...]
    choice: tuple[str, ...]
    yes_no: tuple[str, ...]
    presence: tuple[str, ...]
    absence: tuple[str, ...]
    place: tuple[str, ...]
    report: tuple[str, ...]
    summary: tuple[str, ...]


SEEN: Final = Wordings(
    free=(
        "What is the {noun}?",
        "What is the {noun} of this slide?",
        "What {noun} do you see?",
        "Which {noun} does this slide show?",
        "Which {noun} is present?",
        "Describe the {noun}.",
        "Please describe the {noun} in this image.",
        "Name the {noun}.",
        "Tell me the {noun}.",
        "Tell me about the {noun} of the tissue.",
        "How would you describe the {noun}?",
        "Can you name the {noun}?",
        "Please state the {noun}.",
        "What can you say about the {noun}?",
        "Give the {noun}.",
        "And the {noun}?",
        "How about the {noun}?",
        "What does the slide tell you about the {noun}?",
        "What would you say about the {noun}?",
        "I want to know the {noun}.",
        "Could you name the {noun}?",
        "{noun}?",
    ),
    choice=(
        "What is the {noun}?",
        "Which of these is the {noun}?",
        "Which {noun} does this slide show?",
        "Choose the {noun}.",
        "Choose the right {noun}.",
        "Which option describes the {noun}?",
        "Select the {noun} that fits this slide.",
        "Pick the {noun} of the tissue.",
        "What {noun} do you see?",
        "The {noun} is best described as",
        "Which answer is right for the {noun}?",
        "Based on the slide, what is the {noun}?",
    ),
    yes_no=(
        "Is the {judged} {phrase}?",
        "Would you call the {judged} {phrase}?",
        "The {judged} is {phrase}, right?",
        "Is it true that the {judged} is {phrase}?",
        "Does the slide show that the {judged} is {phrase}?",
        "Do you think the {judged} is {phrase}?",
        "Is the {judged} of this slide {phrase}?",
        "Here the {judged} is {phrase}. Yes or no?",
        "Can one say that the {judged} is {phrase}?",
        "Answer yes or no: is the {judged} {phrase}?",
        "Could one say that the {judged} is {phrase}?",
        "I would say the {judged} is {phrase}. Right?",
    ),
    presence=(
        "Is there {finding}?",
        "Is there any {finding}?",
        "Is {finding} present?",
        "Is {finding} seen?",
        "Are there areas of {finding}?",
        "Does the slide contain {finding}?",
        "Does this tissue show {finding}?",
        "Do you see {finding}?",
        "Can you find {finding}?",
        "Can any {finding} be seen?",
        "Is {finding} visible in this slide?",
        "Answer yes or no: is {finding} present?",
        "Would you say there is {finding}?",
        "Is it true that there is {finding}?",
        "Did you observe {finding}?",
        "Have you seen any {finding}?",
        "Can {finding} be found anywhere in this slide?",
        "Any {finding}?",
        "Any {finding} here?",
        "Could there be {finding}?",
        "I wonder whether there is {finding}.",
    ),
    absence=(
        "Is {finding} absent?",
        "Is the slide free of {finding}?",
        "Is there no {finding}?",
        "Is it true that there is no {finding}?",
        "Would you say the slide has no {finding}?",
        "Does the slide show no {finding}?",
        "There is no {finding}, right?",
        "Do you agree that no {finding} is seen?",
        "Could one say that there is no {finding}?",
    ),
    place=(
        "Where is the {finding}?",
        "Where do you see {finding}?",
        "In which quadrant is the {finding}?",
        "Which quadrant contains {finding}?",
        "Where in the slide is the {finding}?",
        "In which part of the tissue is the {finding}?",
        "Where does the {finding} lie?",
        "Tell me where the {finding} is.",
        "Describe where {finding} is found.",
        "Locate the {finding}.",
    ),
    report=(
        "Write a report.",
        "Write a pathology report for this slide.",
        "Please give a full report.",
        "Generate a report of this slide.",
        "Report on this slide.",
        "What would the report say?",
        "Describe this slide in full.",
        "Give me a complete report of the tissue.",
        "Can you write the report?",
        "Draw up a pathology report.",
    ),
    summary=(
        "Describe the {group}.",
        "Please describe the {group} of this slide.",
        "What are the {group}?",
        "Summarise the {group}.",
        "Tell me about the {group}.",
        "Give a description of the {group}.",
        "What do you see of the {group}?",
        "Can you describe the {group}?",
    ),
)

UNSEEN: Final = Wordings(
    free=(
        "Looking at this slide, what would you say the {noun} is?",
        "I would like to know the {noun}.",
        "In your opinion, which {noun} is it?",
        "Could you tell us the {noun} here?",
    ),
    choice=(
        "Looking at the tissue, which {noun} would you choose?",
        "Decide which {noun} applies here.",
        "One of these is the {noun}. Which one?",
    ),
    yes_no=(
        "Do you agree that the {judged} is {phrase}?",
        "Looking at this slide, is the {judged} {phrase}?",
        "Could the {judged} be called {phrase}?",
    ),
    presence=(
        "Have you noticed {finding} in this slide?",
        "Would you say that {finding} is present here?",
        "Could you find {finding} anywhere?",
    ),
    absence=("Would you say that there is no {finding} here?",),
    place=(
        "Could you show me in which quadrant the {finding} lies?",
        "I would like to know where the {finding} is.",
    ),
    report=(
        "Could you put together a report for this slide?",
        "I would like to read a full report.",
    ),
    summary=(
        "I would like to know about the {group}.",
        "Could you give a description of the {group} here?",
    ),
)

# Options of a multiple-choice question: one option, what stands between two, what stands before the first.
FORMATS: Final = (
    ("{letter}. {phrase}", "\n", "\n"),
    ("{letter}) {phrase}", "\n", "\n"),
    ("{letter}) {phrase}", " ", " "),
    ("{letter}. {phrase}", " ", "\n"),
    ("({letter}) {phrase}", ", ", " "),
)

NECROSIS_NAMES: Final = ("necrosis", "necrotic tissue", "tumour necrosis", "dead tissue")
# Nothing of this is ever drawn; the honest answer is that it is not seen.
NEVER_DRAWN: Final = ("calcification", "amyloid", "melanin", "granulomas", "mucin", "haemorrhage", "bone")
GROUPS: Final = {
    "Global_Morphology_Description": ("overall morphology", "global morphology", "general appearance"),
    "Key_Diagnostic_Description": ("key diagnostic features", "main diagnostic findings", "diagnostic features"),
    "Regional_Structure_Description": ("regional structures", "tissue regions", "structure of the regions"),
    "Specific_Feature_Description": ("cellular features", "specific features", "features of the cells"),
}
