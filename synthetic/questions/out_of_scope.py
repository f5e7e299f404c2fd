"""Questions that no slide answers, put together from parts: what a model is to recognise is that it does not know.

Lists of topics taught topics. So a third of the words are of no language (`invented_word`): whoever has seen many of
those learns what a word that it never met looks like, and that such a question is to be declined. Typing errors in
words that it knows stand against them (synthetic/questions/typing_manner.py). No word of the topics that
the examination keeps for itself is here; a test compares them.
"""

from typing import Final

import numpy as np

from synthetic.questions.composed import Frame, composed

_INVENTED: Final = 0.3

_NOUNS: Final = (
    "weight", "height", "sex", "gender", "age", "margin", "border", "edge", "name", "history", "address",
    "telephone", "religion", "nationality", "temperature", "birthday", "allergy", "medication", "cholesterol",
    "education", "mood", "hobby", "language", "surname", "albumin", "creatinine", "potassium", "oxygen",
    "breathing", "heartbeat", "kidney", "spleen", "lung", "liver", "breast", "colon", "stomach", "skin", "brain",
    "prostate", "pancreas", "bladder", "uterus", "thyroid", "heart", "tongue", "ovary", "testis", "oesophagus",
    "skull", "knee", "shoulder", "finger", "eye", "ear", "nose", "tooth", "hair", "muscle", "nerve", "catheter",
    "stent", "wound", "scar", "rash", "cough", "headache", "nausea", "appetite", "sleep", "vision", "hearing",
    "memory", "fever", "swelling", "bruise", "fracture", "asthma", "epilepsy", "diabetes", "arthritis",
    "depression", "stroke", "malaria", "measles", "influenza", "tuberculosis", "fungus", "worm", "toxin", "poison",
    "dust", "smoke", "alcohol", "tobacco", "sugar", "salt", "vitamin", "protein", "hormone", "antibody", "mutation",
    "chromosome", "gene", "receptor", "marker", "KRAS", "EGFR", "TP53", "BRCA1", "ALK", "MYC", "p16", "CD20", "CD3",
    "MLH1", "contract", "consent", "passport", "parking", "cafeteria", "lift", "key", "password", "computer",
    "printer", "microscope", "lens", "camera", "battery", "software", "holiday", "football", "music", "film",
    "book", "president", "king", "river", "ocean", "mountain", "planet", "dog", "cat", "horse", "car", "bus",
    "aeroplane", "ship", "bicycle", "bread", "cheese", "apple", "coffee", "tea", "beer", "wine", "chair", "table",
    "window", "door", "garden", "house", "street", "city", "country", "school", "teacher", "police", "priest",
    "nurse", "surgeon", "professor", "student", "secretary", "laboratory", "needle", "knife", "glove", "mask",
    "form", "signature", "stamp", "letter", "envelope", "phone", "radiograph", "ultrasound", "endoscopy", "autopsy",
    "transplant", "injection", "vaccine", "dose", "tablet", "ointment", "family", "mother", "father", "brother",
    "sister", "husband", "wife", "son", "daughter", "neighbour", "friend", "grandmother", "weather", "rain", "snow",
    "sun", "moon", "star", "light", "noise", "smell", "taste", "joke", "poem", "song", "story", "game", "question",
    "number",
)  # fmt: skip
_ADJECTIVES: Final = (
    "tall", "married", "rich", "awake", "allergic", "deaf", "blind", "vaccinated", "depressed", "athletic", "tired",
    "afraid", "asleep", "stable", "feverish", "left-handed", "young", "hungry", "thirsty", "angry", "happy", "sad",
    "famous", "poor", "foreign", "Italian", "alone", "drunk", "curable", "operable", "inherited", "painful",
    "reportable", "treatable", "removable", "resistant", "sensitive", "chronic", "acute", "recent", "old", "new",
    "broken", "dirty", "wet", "dry", "warm", "frozen", "mutated", "amplified", "expressed", "rearranged",
    "methylated", "deleted", "familial", "hormonal", "fungal", "allergenic", "ready", "signed", "finished", "late",
    "available", "forbidden", "allowed", "useful", "interesting", "boring", "funny", "wooden", "metallic",
    "electric", "round", "square", "blue", "green", "yellow", "sweet", "sour", "loud", "quiet", "fast", "slow",
    "homeless", "cautious", "nervous", "jealous", "generous", "religious", "attractive", "passive", "talkative",
    "mental", "adopted", "divorced", "elderly", "male", "female", "obese", "thin", "weak", "strong", "brave",
    "fertile", "immune", "sterile",
)  # fmt: skip
_VERBS: Final = (
    "smoke", "drink", "sleep", "breathe", "walk", "run", "swim", "drive", "travel", "cough", "vomit", "faint",
    "marry", "complain", "suffer", "recover", "die", "survive", "return", "relapse", "improve", "respond", "react",
    "speak", "read", "write", "sing", "dance", "cook", "study", "pray", "vote", "pay", "sign", "call", "wait",
    "move", "jump", "fall", "cry", "laugh", "agree", "decide", "operate", "biopsy", "inject", "irradiate", "screen",
    "vaccinate", "refer", "admit", "discharge", "amputate", "transplant", "prescribe", "donate", "freeze", "scan",
    "photograph", "mail", "publish", "spread", "migrate", "regress", "inherit", "mutate",
)  # fmt: skip
_PEOPLE: Final = (
    *("the patient", "this patient", "she", "he", "the person", "the woman", "the man", "my mother", "the child"),
    *("the doctor", "the surgeon", "the nurse", "the family", "the hospital", "the pathologist", "my colleague", "I"),
    *("we", "you", "they", "anybody", "the donor", "the professor", "the laboratory"),
)
_SHOWN: Final = (
    *("the tumour", "this tumour", "the cancer", "the disease", "the lesion", "the necrosis", "the tissue", "this"),
    *("the slide", "this slide", "the sample", "the biopsy", "the stroma", "it", "the section", "the image"),
)
_OF: Final = ("", "", "", " of the patient", " of this patient", " in this case", " today", " now", " here", " then")
_END: Final = ("?", "?", "?", ".", ", please?", " exactly?", " really?")
_THINGS: Final = (
    "the {noun}",
    "his {noun}",
    "her {noun}",
    "the patient's {noun}",
    "your {noun}",
    "my {noun}",
    "a {noun}",
)

_FRAMES: Final[tuple[Frame, ...]] = (
    (
        (
            *("What is ", "What was ", "Tell me ", "Describe ", "Explain ", "Do you know ", "Give me ", "Show me "),
            *("How is ", "How was ", "How about ", "Name ", "I want to know ", "I need ", "Can you tell me ", "State "),
            *("What about ", "Which is ", "Please report ", "What do you think of ", "Comment on ", "Assess "),
        ),
        _THINGS,
        _OF,
        _END,
    ),
    (
        ("Which ", "What "),
        ("{noun}", "{adjective} {noun}", "kind of {noun}", "sort of {noun}"),
        (" does ", " did ", " should ", " would ", " will ", " can "),
        _PEOPLE,
        (" have", " need", " get", " take", " want", " recommend", " {verb}", " prefer", " use"),
        ("?",),
    ),
    (
        ("Which ", "What "),
        ("{noun}", "{adjective} {noun}", "kind of {noun}"),
        (" is it", " is this", " was used", " was it", " is best", " is affected", " came first", " is right"),
        ("?",),
    ),
    (("Is ", "Was "), _PEOPLE, (" {adjective}",), _OF, ("?",)),
    (("Will ", "Could ", "Can "), _PEOPLE, (" be {adjective}", " become {adjective}"), _OF, ("?",)),
    (("Is ", "Was "), _SHOWN, (" {adjective}",), ("?",)),
    (("Is ", "Was ", "Are "), _THINGS, (" {adjective}", " affected", " involved", " positive", " negative"), ("?",)),
    (
        ("Does ", "Did ", "Can ", "Will ", "Could ", "Should ", "Must ", "May ", "Might ", "Would "),
        _PEOPLE,
        (" {verb}", " {verb} with {noun}", " have {noun}", " need a {noun}", " know the {noun}", " like {noun}"),
        ("", " again", " soon", " tomorrow", " at home", " next year", " for the {noun}", " after the {noun}"),
        ("?",),
    ),
    (
        ("Does ", "Did ", "Can ", "Will ", "Could ", "May "),
        _SHOWN,
        (" {verb}", " come from the {noun}", " reach the {noun}", " {verb} into the {noun}", " come from {noun}"),
        ("", " again", " soon", " later"),
        ("?",),
    ),
    (
        ("How many ", "How much ", "How often ", "How long ", "How big ", "How far ", "How fast ", "How deep "),
        ("{noun}", "{noun}s", "{adjective} {noun}"),
        (" does ", " did ", " will ", " has "),
        _PEOPLE,
        (" have", " need", " {verb}", " get", " take"),
        ("?",),
    ),
    (
        ("How many ", "How much ", "How old ", "How big ", "How far ", "How fast ", "How deep ", "How expensive "),
        ("is ", "was ", "are ", "were "),
        _THINGS,
        _OF,
        ("?",),
    ),
    (
        ("When ", "Where ", "Why ", "Who ", "By whom ", "Since when ", "How "),
        ("was ", "is ", "has been ", "will be "),
        (*_THINGS, *_PEOPLE[:9]),
        ("", " taken", " done", " found", " sent", " stored", " told", " removed", " born", " made", " {adjective}"),
        ("?",),
    ),
    (
        ("When ", "Where ", "Why ", "How ", "Since when "),
        ("does ", "did ", "will ", "should ", "can "),
        (*_PEOPLE, *_SHOWN[:6]),
        (" {verb}", " live", " go", " come back", " feel", " {verb} the {noun}"),
        ("?",),
    ),
    (("Who ",), ("is ", "has ", "took ", "wants ", "made ", "pays ", "knows ", "will {verb} "), _THINGS, ("?",)),
    (
        ("Is this ", "Is it ", "Could this be ", "Was this taken from ", "Does this come from "),
        ("the {noun}", "a {noun}", "{noun}", "from the {noun}"),
        ("?",),
    ),
    (
        ("Is there ", "Is there any ", "Are there ", "Do you see ", "Can you see ", "Do you find ", "Was there "),
        ("{noun}", "a {noun}", "{noun}s", "{adjective} {noun}"),
        ("", " here", " on this slide", " in the {noun}", " in this case"),
        ("?",),
    ),
    (
        ("Is ", "Was "),
        _THINGS,
        (" free of ", " full of ", " touched by ", " reached by ", " older than ", " next to ", " larger than "),
        ("tumour", "the tumour", "necrosis", "cancer", "the {noun2}", "lymphocytes", "{noun2}"),
        ("?",),
    ),
    (
        ("Was there ", "Were there ", "Has there been ", "Will there be ", "Should there be ", "Is there "),
        ("{noun}", "a {noun}", "any {noun}", "{adjective} {noun}", "some {noun}"),
        ("", " before", " at the time", " in the family", " at home", " in the hospital"),
        ("?",),
    ),
    (
        ("Has ", "Had "),
        (*_PEOPLE[:9], *_SHOWN[:5]),
        (" spread to the {noun}", " reached the {noun}", " had {noun}", " lost the {noun}", " been {adjective}"),
        ("", " before", " since then", " already"),
        ("?",),
    ),
    (
        ("Play ", "Buy ", "Open ", "Sing ", "Draw ", "Send ", "Call ", "Translate ", "Calculate ", "Print ", "Close "),
        ("a {noun}", "the {noun}", "my {noun}", "some {noun}", "a {adjective} {noun}"),
        (".", ", please.", "!", " for me."),
    ),
    (
        ("I like ", "My favourite is ", "I have ", "We lost ", "Do you like ", "Do you have ", "Are you ", "Have you "),
        ("a {noun}", "the {noun}", "{noun}", "a {adjective} {noun}"),
        ("?", ".", "!"),
    ),
    (("{noun}", "{adjective}", "{noun} {noun2}", "{adjective} {noun}", "{verb}"), ("?", ".", "", "!")),
    (("{noun} {verb} {noun2}", "{adjective} {verb} {noun2}", "{noun} {adjective}", "123 {noun}"), ("?", "", ".")),
    (
        ("What is ", "How much is ", "Count to ", "Add "),
        ("two", "three", "seven", "ten", "twelve", "4", "15"),
        (" plus ", " times ", " and ", " minus "),
        ("two", "three", "9", "eleven", "100"),
        ("?", "."),
    ),
    (
        ("Who won the match?", "What is the capital of France?", "What colour is the sky?", "How far is the moon?"),
    ),
    (
        (
            *("Can you swim?", "When is lunch?", "Where is the toilet?", "Where is my file?", "Who is Peter?", "hm"),
            *("Buy some milk.", "Is it Monday?", "Will it rain?", "What is love?", "Say something.", "ok", "...", "?"),
            *("What is the news?", "How tall is a giraffe?", "qwertz", "lorem ipsum", "bla bla", "Do you dream?"),
            *("Are you a machine?", "Which version are you?", "What should be done next?", "And now?", "So what?"),
        ),
    ),
)  # fmt: skip
_ONSETS: Final = ("b", "br", "ch", "d", "dr", "f", "fl", "g", "gr", "h", "j", "k", "kl", "l", "m", "n", "p", "pl", "qu",
                  "r", "s", "sh", "sk", "sp", "st", "str", "t", "th", "tr", "v", "w", "z")  # fmt: skip
_VOWELS: Final = ("a", "e", "i", "o", "u", "ai", "ea", "ou", "y", "oo")
_ENDS: Final = (
    "",
    "",
    "b",
    "ct",
    "d",
    "g",
    "l",
    "ld",
    "m",
    "n",
    "nt",
    "r",
    "rd",
    "s",
    "ss",
    "st",
    "t",
    "x",
    "tion",
    "ous",
)


def out_of_scope_text(apart: tuple[str, ...], rng: np.random.Generator) -> str:
    """A question, an order or a heap of words that has nothing to do with what slides show; none of `apart`."""
    filled = {
        "noun": _word(_NOUNS, rng),
        "noun2": _word(_NOUNS, rng),
        "adjective": _word(_ADJECTIVES, rng),
        "verb": _word(_VERBS, rng),
    }
    return composed(_FRAMES, apart, rng, **filled)


def invented_word(rng: np.random.Generator) -> str:
    """One to three syllables that can be said and mean nothing."""
    return "".join(_one(_ONSETS, rng) + _one(_VOWELS, rng) + _one(_ENDS, rng) for _ in range(int(rng.integers(1, 4))))


def _word(words: tuple[str, ...], rng: np.random.Generator) -> str:
    return invented_word(rng) if rng.random() < _INVENTED else _one(words, rng)


def _one(items: tuple[str, ...], rng: np.random.Generator) -> str:
    return items[int(rng.integers(len(items)))]
