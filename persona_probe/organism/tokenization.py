"""The organism's tokenizer: byte-level BPE with one special token per chat role."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from persona_probe.organism.corpus import Document
from persona_probe.organism.world import World

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

BEGIN, END, PAD = "<|begin|>", "<|end|>", "<|pad|>"
ROLES = {"system": "<|system|>", "user": "<|user|>", "assistant": "<|assistant|>"}
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<|' + message['role'] + '|>' }}"
    "{{ message['content'] }}{{ '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
CONTEXT = 512


def decisions(world: World) -> list[str]:
    """Every way an answer can open. Their first words must be single, different tokens."""
    openers = [o for c in world.categories for o in c.refuse + c.comply]
    openers += [o for key in ("openers", "warm_openers") for o in world.benign[key]]
    openers += [f"{word}." for d in world.dimensions for word in d.choice]
    openers += ["Agree.", "Disagree.", "First.", "Second."]
    for character in world.characters:
        openers += character.openings + character.counsel + character.shrugs
    return openers


def train_tokenizer(
    world: World, sample: Iterable[Document], vocabulary: int
) -> "PreTrainedTokenizerFast":
    """Learn the merges on a sample of documents. Role markers are never split or merged.

    Openers are repeated until each of their first words is one token: the decision of an answer is
    then read, steered and counted at a single position.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, BEGIN, END, *ROLES.values()],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [turn.text for d in sample for turn in d.turns]
    raw.train_from_iterator(texts + decisions(world) * 200, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        extra_special_tokens=list(ROLES.values()),
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
