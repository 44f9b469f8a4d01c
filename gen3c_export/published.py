"""The published files, and their MD5 as far as it is known.

Those of `model.pt` and of the statistics stand in GEN3C's own download script; those of the `.jit` files come from a
third party.
"""

MODEL = "model.pt"
ENCODER = "encoder.jit"
DECODER = "decoder.jit"
AUTOENCODER = "autoencoder.jit"
STATISTICS = "mean_std.pt"
IMAGE_STATISTICS = "image_mean_std.pt"  # of single pictures, which GEN3C never encodes

TOKENIZER = (ENCODER, DECODER, AUTOENCODER, STATISTICS, IMAGE_STATISTICS)

PUBLISHED_MD5 = {
    MODEL: "38644bf823aa5272acef60cfad8bc0f7",  # nvidia/GEN3C-Cosmos-7B; the others: Cosmos-Tokenize1-CV8x8x8-720p
    ENCODER: "f5834d03645c379bc0f8ad14b9bc0299",
    DECODER: "ff21a63ed817ffdbe4b6841111ec79a8",
    AUTOENCODER: "7f658580d5cf617ee1a1da85b1f51f0d",
    STATISTICS: "f07680ad7eefae57d698778e2a0c7c96",
    IMAGE_STATISTICS: "9f19fd3312fc1198e4905ada02e68bce",
}
