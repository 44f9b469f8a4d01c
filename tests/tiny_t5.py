"""A T5 encoder of milliseconds with a tokenizer of whole words, in transformers' layout."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

WORDS = ("a", "red", "blue", "house", "barn", "at", "night", "by", "the", "sea")
WIDTH = 64  # text_dim of preset tiny


def write_encoder(folder: Path, seed: int = 0, width: int = WIDTH) -> Path:
    """An untrained encoder and its tokenizer, which ends every text with </s> as T5's does."""
    tokens = ("<pad>", "</s>", "<unk>", *WORDS)
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(tokens)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = T5Config(vocab_size=len(tokens), d_model=width, d_kv=16, d_ff=128, num_layers=2, num_heads=4)
        T5EncoderModel(config).save_pretrained(folder)
    return folder


def shard_encoder(folder: Path) -> list[Path]:
    """Split model.safetensors into shards with an index, as transformers saves large networks; returns the shards."""
    T5EncoderModel.from_pretrained(folder).save_pretrained(folder, max_shard_size="64KB")
    (folder / "model.safetensors").unlink(missing_ok=True)
    return sorted(folder.glob("model-*.safetensors"))
