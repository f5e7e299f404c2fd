"""The demo model's own small tokenizer: byte-level BPE over a short list of words from pathology reports.

It is in the layout of a Vicuna checkpoint in what matters to a server: `<s>` 1, `</s>` 2, and `<image>` an added
special token whose id is just beyond the language model's vocabulary.
"""

import json
from pathlib import Path
from typing import Final

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

UNKNOWN: Final = "<unk>"
BOS: Final = "<s>"
EOS: Final = "</s>"
PLACEHOLDER: Final = "<image>"
# BPE reaches one token per word well below this; the limit only guards the list's growth.
MAX_VOCABULARY: Final = 1024

WORDS: Final = tuple(
    """
    a an and are as at between by for from in into is it no not of on or shows the there this to with within without
    answer assistant artificial chat curious describe detailed gives helpful human intelligence polite question
    questions slide tissue image what which where how many much most
    adenocarcinoma atypia atypical basal benign biopsy border carcinoma cell cells cellular chromatin clear columnar
    cribriform cytoplasm dense desmoplastic diffuse dysplasia edge eosinophilic epithelial epithelium fat fibrous field
    focal gland glands glandular grade growth high histological hyperchromatic infiltrate inflammation invasion
    invasive keratin keratinising large layer lesion low lumen lymphocytes lymphoid lymphovascular malignant margin
    marked metaplasia mild mitoses mitotic moderate moderately mucin mucosa muscle necrosis necrotic nests normal
    nuclear nuclei nucleoli obscured papillary patchy pattern perineural plasma pleomorphic pleomorphism poorly
    present prominent reactive region sheets smooth solid spindle squamous stroma stromal submucosa surface tubular
    tubules tumour type uniform vascular vesicular vessels well
    """.split()  # noqa: SIM905 - a literal would be one line per word
)


def train_tokenizer() -> Tokenizer:
    """The same tokenizer on every machine: the trainer breaks ties by symbol, and the text is fixed."""
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=MAX_VOCABULARY,
        special_tokens=[UNKNOWN, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # Each word as it stands within a sentence, with its leading space.
    tokenizer.train_from_iterator([f" {word}" for word in WORDS], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, 1)])
    tokenizer.add_special_tokens([AddedToken(PLACEHOLDER, normalized=False)])
    return tokenizer


def word_ids(tokenizer: Tokenizer) -> list[int]:
    """Ids of the tokens that are one whole word with its leading space, in the order of `WORDS`."""
    ids = (tokenizer.encode(f" {word}", add_special_tokens=False).ids for word in WORDS)
    return [pieces[0] for pieces in ids if len(pieces) == 1]


def write_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """`tokenizer.json` and `tokenizer_config.json`, which transformers' AutoTokenizer loads."""
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "unk_token": UNKNOWN,
        # Published Vicuna checkpoints pad with the unknown token too.
        "pad_token": UNKNOWN,
        "additional_special_tokens": [PLACEHOLDER],
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
