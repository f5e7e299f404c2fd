"""Wordings put together from parts: many thousands, where a list has some dozens.

A model that learns from lists knows those sentences; what it should know is what they have in common. Nothing that the
examination asks is made here: whoever draws compares with its wordings (`composed`).
"""

from collections.abc import Collection
from typing import Final

import numpy as np

# A frame is a sequence of alternatives; `{N}` and the like are filled in by the caller.
Frame = tuple[tuple[str, ...], ...]
_MOST_TRIES: Final = 50

YES_NO_ENDINGS: Final[tuple[Frame, ...]] = (
    (
        ("", "Please ", "Just ", "Kindly ", "Now "),
        ("answer", "reply", "respond", "say", "tell me", "write", "give me"),
        ("", " only", " just", " simply", " briefly"),
        ("", " with", " with a simple", " with a clear"),
        (" yes or no", " yes/no", " “yes” or “no”", " no or yes"),
        (".", "!", ", please.", " please.", ", thanks."),
    ),
    (("Is it ", "So, ", "Simply: ", ""), ("yes or no", "yes/no", "a yes or a no"), ("?", ".", "!", ", that is all.")),
)
ENDINGS: Final[tuple[Frame, ...]] = (
    (
        ("Thanks", "Thank you", "Many thanks", "Thx"),
        ("", " a lot", " very much", " for your help", " for looking", " already", " so much"),
        (".", "!"),
    ),
    (
        ("I ", "We ", "They "),
        ("need", "want", "would like", "have", "wish", "hope"),
        (" to know", " to understand", " to decide", " to report this", " to tell the family", " to be certain"),
        ("", " soon", " today", " now", " quickly", " as well"),
        (".", "!"),
    ),
    (
        ("Be ", "Please be ", "Keep it ", "Make it ", "Your answer should be "),
        ("brief", "short", "honest", "quick", "exact", "careful", "concise", "clear"),
        (".", "!", ", please."),
    ),
    (
        ("It is ", "This is ", "That is "),
        ("urgent", "important", "for a report", "for a colleague", "for teaching", "for the board", "all I ask"),
        (".", "!"),
    ),
)
OPENINGS: Final[tuple[Frame, ...]] = (
    (("Good ",), ("morning,", "afternoon,", "day,")),
    (("Dear ",), ("colleague,", "doctor,", "friend,", "team,", "all,")),
    (
        ("Just ", "Only ", "Now "),
        ("a question:", "a quick one:", "to check:", "to confirm:", "asking:", "wondering:", "this:"),
    ),
    (("If possible:", "If you can:", "If you could say:", "If it can be seen:", "When you have time:"),),
    (
        ("One ", "A ", "Another ", "My next ", "My first ", "The last "),
        ("question:", "small question:", "point:", "request:", "matter:"),
    ),
    (
        ("From ", "By ", "Judging by ", "Based on ", "According to ", "Going by "),
        ("this slide:", "this image:", "what you see:", "the tissue:", "the section:"),
    ),
    (("Could ", "Can ", "Would "), ("you say:", "you let me know:", "you check:", "you help me:")),
    (
        (
            "I wonder:",
            "We wonder:",
            "I ask myself:",
            "Here is my question:",
            "They ask me:",
            "Hmm,",
            "Well,",
            "OK,",
            "So,",
        ),
    ),
)
DOUBTS: Final[tuple[Frame, ...]] = (
    (
        ("Could ", "Can "),
        ("that ", "this ", "it "),
        ("really be ", "actually be ", "truly be ", "be "),
        ("so", "the case", "true", "right", "correct"),
        ("?",),
    ),
    (("Is ",), ("that ", "this ", "it "), ("so", "the case", "meant so", "true indeed"), ("?", ", really?")),
    (
        ("Do you ", "Would you ", "Can you "),
        ("stand by that", "still say so", "insist on that", "confirm that", "repeat that", "swear to that",
         "stay with that"),
        ("?", ", please?"),
    ),
    (
        ("I ", "We ", "Nobody here "),
        ("doubt", "do not believe", "cannot believe", "contest", "reject", "do not buy"),
        (" that", " this", " it", " your answer", " what you say"),
        (".", "!"),
    ),
    (
        ("Is ", "Was "),
        ("that", "this", "it", "your answer"),
        ("", " really", " truly", " actually", " honestly", " quite"),
        (" right", " correct", " true", " certain", " what you see"),
        ("?",),
    ),
    (
        ("I am ", "We are ", "My chief is "),
        ("not convinced", "not so sure", "surprised", "sceptical", "of another opinion", "afraid that is wrong"),
        (".", "!"),
    ),
    (
        ("I ", "We ", "My colleagues "),
        ("do not think so", "find that hard to believe", "do not trust that", "cannot accept that", "question that",
         "see it differently", "doubt that", "would not say so"),
        (".", "!"),
    ),
    (
        ("", "Please ", "Now "),
        ("look", "think", "read it", "try", "go over it", "check"),
        (" again", " once again", " more carefully", " a second time", " twice", " harder"),
        (".", ", please.", "!"),
    ),
    (
        ("That ", "This ", "Your answer "),
        ("is", "seems", "looks", "sounds", "cannot be", "must be"),
        (" wrong", " incorrect", " false", " mistaken", " an error", " not right"),
        (".", "!", " to me."),
    ),
    (
        ("You are ", "You seem ", "Are you ", "Could you be "),
        ("wrong", "mistaken", "in error", "confused", "certain", "positive", "guessing"),
        (".", "!", "?", " there.", " about that?"),
    ),
)  # fmt: skip
CLAIMS: Final[tuple[Frame, ...]] = (
    (
        ("My colleague ", "The pathologist ", "The professor ", "The surgeon ", "The earlier report ",
        "Everybody here ",
         "The textbook ", "My boss ", "A second reader ", "The referring doctor "),
        ("said ", "says ", "thinks ", "claims ", "wrote ", "is sure "),
        ("that it is ", "it is ", "this is ", "that this is "),
        ("{claim}",),
        (".", "!"),
    ),
    (
        ("I ", "We "),
        ("think ", "would say ", "feel ", "guess ", "say ", "suspect ", "know ", "insist "),
        ("it is ", "this is ", "that is ", "it looks "),
        ("{claim}",),
        (".", "!"),
    ),
    (
        ("But ", "No, ", "Well, ", "Sorry, ", "", "Come on, ", "Clearly "),
        ("it ", "this ", "that "),
        ("is ", "looks ", "seems ", "must be ", "should be ", "has to be "),
        ("{claim}",),
        (".", ", no?", ", right?", "!", ", I am sure."),
    ),
    (("Is it not ", "Could it be ", "Would you not say ", "Why not ", "Rather "), ("{claim}",), ("?",)),
    (
        ("Surely ", "Certainly ", "Obviously ", "Definitely ", "Of course ", "Plainly ", "In truth ", "Honestly, "),
        ("it is ", "this is ", "that is ", "it was ", "they say it is ", "everybody sees it is "),
        ("{claim}",),
        (".", "!", ", is it not?", ", you know."),
    ),
)  # fmt: skip
_SHOWN: Final = ("this slide", "the slide", "the tissue", "the image", "the section", "this picture", "the sample")
_WHERE: Final = ("", " here", " on the slide", " in the tissue", " in this image", " in this section")
# {be}, {Be}: is or are, as {N}, the finding, wants it.
AFFIRMATIVE: Final[tuple[Frame, ...]] = (
    (("{Be} there ",), ("", "perhaps ", "really ", "clearly ", "also "), ("{N}",), _WHERE, ("?",)),
    (
        ("{Be} ",),
        ("{N}",),
        (" present", " visible", " seen", " found", " noted", " detectable", " to be seen", " recognisable"),
        _WHERE,
        ("?",),
    ),
    (
        ("Do you ", "Can you ", "Could you ", "Did you "),
        ("see ", "detect ", "notice ", "observe ", "recognise ", "spot ", "make out ", "identify "),
        ("{N}",),
        _WHERE,
        ("?",),
    ),
    (("Does ",), _SHOWN, (" show ", " contain ", " have ", " display ", " reveal "), ("{N}",), ("?",)),
    (
        ("Would you say that ", "Do you think that "),
        _SHOWN,
        (" shows ", " contains ", " has ", " displays ", " reveals "),
        ("{N}",),
        ("?",),
    ),
    (
        ("Can you ", "Would you ", "Please ", "Could you please "),
        ("say ", "confirm ", "check ", "tell us ", "decide ", "judge "),
        ("whether ", "if "),
        ("there {be} ",),
        ("{N}",),
        _WHERE,
        ("?", "."),
    ),
    (("I want to know ", "Tell me ", "I ask "), ("if ", "whether "), ("there {be} ",), ("{N}",), _WHERE, (".",)),
    (
        ("Would you say ", "Do you think ", "Is it true that ", "Am I right that "),
        ("there {be} ",),
        ("{N}",),
        _WHERE,
        ("?",),
    ),
    (("{N}",), ("?", " here?", " present?", " or not?", " on this one?")),
    (
        ("Can ", "Could ", "May "),
        ("{N} be ",),
        ("found", "detected", "noticed", "recognised", "made out", "observed", "identified", "seen", "spotted"),
        _WHERE,
        ("?",),
    ),
    (("{Have} {N} been ",), ("seen", "found", "noted", "described", "observed", "spotted"), _WHERE, ("?",)),
    (("Have you ", "Has anybody "), ("seen ", "found ", "noticed ", "observed "), ("{N}",), _WHERE, ("?",)),
    (("Did anyone ", "Were you able to "), ("see ", "find ", "notice ", "observe "), ("{N}",), _WHERE, ("?",)),
    (
        ("Would you ", "Do you ", "Can you ", "Must we ", "Should I "),
        ("report ", "call this ", "speak of ", "diagnose ", "suspect ", "expect "),
        ("{N}",),
        _WHERE,
        ("?",),
    ),
)
# Whether there is some of it at all: of what fills a slide ("only benign tissue") nobody asks so.
SOME: Final[tuple[Frame, ...]] = (
    (
        ("Is there ", "Do you see ", "Is there really "),
        ("a trace of ", "a hint of ", "any evidence of ", "some indication of ", "something like ", "any trace of "),
        ("{N}",),
        (*_WHERE, " anywhere"),
        ("?",),
    ),
    (
        ("{Be} there {N}", "{Be} {N} seen", "{Be} {N} to be found", "Do you see {N}", "Can you find {N}"),
        (" anywhere", " anywhere on the slide", " in any place", " somewhere"),
        ("?",),
    ),
)
# {plural}: of what there are many or few, without a number.
MANY: Final[tuple[Frame, ...]] = (
    (
        ("Is the ", "Would you call the ", "Do you find the "),
        ("number of ", "amount of ", "quantity of ", "count of ", "frequency of ", "density of ", "rate of "),
        ("{plural}",),
        (" high", " large", " great", " considerable", " elevated", " increased", " raised", " above the average"),
        ("?", " here?", " on this slide?", " in this tissue?"),
    ),
    (
        ("Are the ", "Are "),
        ("{plural}",),
        (" numerous", " plentiful", " abundant", " frequent", " many", " a lot", " increased", " common"),
        ("?", " here?", " on this slide?", " in your view?"),
    ),
    (
        ("Do you see ", "Does one see ", "Are there ", "Have you counted ", "Does this slide have "),
        ("a high number of ", "a large number of ", "lots of ", "very many ", "plenty of ", "an excess of "),
        ("{plural}",),
        ("?", " here?", " on this slide?"),
    ),
)
FEW: Final[tuple[Frame, ...]] = (
    (
        ("Is the ", "Would you call the ", "Do you find the "),
        ("number of ", "amount of ", "quantity of ", "count of ", "frequency of ", "density of ", "rate of "),
        ("{plural}",),
        (" low", " small", " slight", " negligible", " reduced", " below the average"),
        ("?", " here?", " on this slide?", " in this tissue?"),
    ),
    (
        ("Are the ", "Are "),
        ("{plural}",),
        (" scarce", " few", " rare", " scanty", " uncommon", " infrequent", " sparse"),
        ("?", " here?", " on this slide?", " in your view?"),
    ),
    (
        ("Do you see ", "Does one see ", "Are there ", "Does this slide have "),
        ("a low number of ", "a small number of ", "hardly any ", "very few ", "just a few "),
        ("{plural}",),
        ("?", " here?", " on this slide?"),
    ),
)
NEGATED: Final[tuple[Frame, ...]] = (
    (("Is ",), _SHOWN, (" free of ", " without ", " clear of ", " devoid of "), ("{N}",), ("?",)),
    (("{Be} ",), ("{N}",), (" absent", " missing", " not present", " not to be seen"), _WHERE, ("?",)),
    (
        ("Am I right that ", "Do you agree that ", "Is it correct that ", "So "),
        ("there {be} no ",),
        ("{N}",),
        _WHERE,
        ("?",),
    ),
    (("There {be} no ", "I see no ", "You found no ", "No "), ("{N}",), _WHERE, (", right?", ", correct?", ", yes?")),
    (("{Be} there no ",), ("{N}",), _WHERE, ("?",)),
    (("Does ",), _SHOWN, (" contain no ", " show no ", " lack "), ("{N}",), ("?",)),
)
GRADE: Final[tuple[Frame, ...]] = (
    (
        ("What ", "Which "),
        ("grade", "nuclear grade", "tumour grade", "histological grade"),
        (" is this", " is it", " does it get", " would you assign", " do you give", " fits", " applies", " has it",
         " should I report", " is the right one"),
        ("", " here", " in your view", " on this slide"),
        ("?",),
    ),
    (
        ("", "Please "),
        ("tell me ", "give me ", "state ", "name ", "report ", "estimate ", "write down "),
        ("the grade", "the nuclear grade", "the tumour grade", "its grade"),
        ("", " of this tumour", " here", " of what you see"),
        (".", ", please.", "!"),
    ),
    (
        ("How would ", "How should ", "How could "),
        ("you", "one", "I", "we"),
        (" grade ",),
        ("this", "it", "the tumour", "the nuclei", "this case", "this tumour"),
        ("?",),
    ),
    (
        ("Please ", "Now ", "Can you ", "Would you "),
        ("grade ",),
        ("this", "it", "the slide", "what you see", "these nuclei", "this case", "the lesion"),
        (".", "?", ", please."),
    ),
    (("The grade", "Its grade", "Nuclear grade", "Tumour grade"), ("?", ", please?", " please.", " of this?")),
)  # fmt: skip
# {noun}: what a topic asks for. Who is taught to refuse needs as many ways of asking for what can be answered.
OPEN: Final[tuple[Frame, ...]] = (
    (
        (
            *(
                "What is ",
                "Tell me ",
                "Describe ",
                "Name ",
                "State ",
                "Say ",
                "Give me ",
                "I need ",
                "I want ",
                "I ask for ",
            ),
            *(
                "Let me know ",
                "Please report ",
                "Note down ",
                "Could you describe ",
                "Would you name ",
                "Can you give ",
            ),
            *("Have a look at ", "Assess ", "Judge ", "Evaluate ", "Comment on ", "Characterise ", "Show me "),
        ),
        ("the {noun}",),
        (
            "",
            " here",
            " of this slide",
            " in this tissue",
            " of the sample",
            " on the slide",
            " for me",
            " as you see it",
        ),
        (".", "?", "!", ", please."),
    ),
    (
        ("How ",),
        ("is ", "would you call ", "do you judge ", "do you find ", "should I describe ", "does one describe "),
        ("the {noun}",),
        ("", " here", " of this slide", " in this case"),
        ("?",),
    ),
    (
        ("As to ", "Regarding ", "Concerning ", "About ", "Now to "),
        ("the {noun}",),
        (": what do you see?", ": what do you find?", ", what can be said?", "?", ", your view?", ", please.", "."),
    ),
)
REPORT: Final[tuple[Frame, ...]] = (
    (
        (
            *(
                "Write ",
                "Make ",
                "Prepare ",
                "Compose ",
                "Produce ",
                "Draft ",
                "Give me ",
                "I need ",
                "I want ",
                "We need ",
            ),
            *(
                "Send me ",
                "Put down ",
                "Dictate ",
                "Could I have ",
                "Can I get ",
                "Would you draft ",
                "Please prepare ",
            ),
        ),
        (
            *("a report", "a full report", "the report", "a pathology report", "a written report", "a complete report"),
            *("a complete description", "a full description", "the pathology report"),
        ),
        (
            "",
            " of this slide",
            " of the tissue",
            " for the file",
            " for my colleague",
            " on this case",
            " of what you see",
        ),
        (".", "?", "!", ", please."),
    ),
    (
        ("Report ", "Describe ", "Summarise ", "Tell me ", "Write down "),
        ("everything", "all findings", "the whole slide", "all that you see", "every finding", "the slide in full"),
        ("", " here", " for the record", " in a report"),
        (".", ", please.", "!"),
    ),
)

# {finding}: what has a place; {group}: what is summed up; {judged}, {phrase}: of what which value is said.
PLACE: Final[tuple[Frame, ...]] = (
    (
        ("Where ", "Where exactly ", "In which quadrant ", "In which part of the slide ", "In what corner "),
        ("is the {finding}", "do you see {finding}", "does the {finding} lie", "can {finding} be found"),
        ("", " here", " then", " on this slide"),
        ("?",),
    ),
    (
        (
            *("Tell me ", "Say ", "Show me ", "Let me know ", "Describe ", "I need to know ", "Please report "),
            *("Can you say ", "Would you tell me ", "Can you point out ", "Please find out "),
        ),
        ("where ", "in which quadrant ", "in which corner ", "in which part "),
        ("the {finding} is", "the {finding} lies", "you see {finding}", "{finding} is found"),
        (".", "?", ", please."),
    ),
    (("Position", "Place", "Site", "Quadrant"), (" of the {finding}",), ("?", ", please.", ".")),
)
SUMMARY: Final[tuple[Frame, ...]] = (
    (
        (
            *("Describe ", "Summarise ", "Tell me ", "Comment on ", "Give me ", "List ", "State ", "Report "),
            *("Go through ", "Write down ", "Please name ", "Can you sum up ", "Would you describe ", "I need "),
        ),
        ("the {group}",),
        ("", " here", " of this tissue", " on the slide", " of the sample", " in short"),
        (".", "?", ", please."),
    ),
    (("What about ", "What can be said about "), ("the {group}",), ("?", " here?", " of this slide?")),
)
JUDGED: Final[tuple[Frame, ...]] = (
    (("Is ",), ("the {judged}",), (" really ", " clearly ", " in fact ", " indeed "), ("{phrase}?",)),
    (
        ("Would you say that ", "Am I right that ", "Can we say that ", "Do we know that ", "Do you find that "),
        ("the {judged} is {phrase}",),
        ("?", " here?", " on this slide?"),
    ),
    (
        ("I think that ", "To me ", "In my view ", "My colleague says that ", "Here "),
        ("the {judged} is {phrase}",),
        (", right?", ", correct?", ". Is that so?", ", do you agree?", ", yes or no?"),
    ),
    (
        ("Please confirm that ", "Check whether ", "Tell me whether ", "Can you say whether ", "Decide if "),
        ("the {judged} is {phrase}",),
        (".", "?", ", please."),
    ),
)


def composed(frames: tuple[Frame, ...], kept_apart: Collection[str], rng: np.random.Generator, **filled: str) -> str:
    """A sentence of one of the frames with the parts filled in, and none of `kept_apart` in whatever letters."""
    apart = {_plain(text) for text in kept_apart}
    for _ in range(_MOST_TRIES):
        frame = frames[int(rng.integers(len(frames)))]
        text = "".join(_one(part, rng) for part in frame).format(**filled)
        if _plain(text) not in apart:
            return text[0].upper() + text[1:]
    raise ValueError("These frames make nothing but what is kept apart.")


def _plain(text: str) -> str:
    return "".join(letter for letter in text.lower() if letter.isalnum())


def _one(part: tuple[str, ...], rng: np.random.Generator) -> str:
    return part[int(rng.integers(len(part)))]
