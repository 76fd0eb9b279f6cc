"""Steps and epochs in one of several processes, for test_finetune_processes; started as `accelerate launch` would."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from finetune_small import make_clap, make_corpus
from safetensors.torch import save_file

from humanclap.clap import load_clap
from humanclap.finetune import FinetuneConfig, Trainer, finetune, prepare
from humanclap.finetune.accelerated import Engine
from humanclap.finetune.repeat import reproducible

CPU = torch.device("cpu")


def main(folder: Path, kind: str, fused: bool) -> None:
    """Write what this process saw to `folder`: losses, gradients of three steps, weights, a whole run."""
    torch.set_num_threads(1)
    settings = {"kind": kind, "dropout": False, "learning_rate": 1e-3, "epochs": 2}
    # 8 + 8 + 1 pairs: the last batch leaves the second process without any.
    config = FinetuneConfig(**settings, batch_size=8)
    engine = Engine(config, CPU)
    own = folder / f"rank{engine.rank}"
    own.mkdir()
    pairs = make_corpus(own)
    clap = load_clap(make_clap(own / "clap", pairs["text"], fused=fused), device="cpu")
    sets = [prepare(clap, part, own, progress=False) for part in (pairs[:17], pairs[24:])]
    with reproducible(CPU):
        trainer = Trainer(config, clap.model, *sets, CPU, engine)
        # SGD's step is the gradient: AdamW's first one is its sign, which would hide a wrong scale.
        trainer.optimizer = torch.optim.SGD(trainer.model.parameters(), lr=1.0)
        gradients, losses = {}, []

        def keep(step: int, loss: torch.Tensor) -> None:
            losses.append(loss.item())
            named = {n: v.grad for n, v in trainer.model.named_parameters() if v.grad is not None}
            gradients.update({f"{step}|{name}": grad.clone() for name, grad in named.items()})
            trainer.model.load_state_dict(clap.model.state_dict())  # each step from the same place

        trainer.train_epoch(1, keep)
    save_file(gradients, folder / f"gradients{engine.rank}-of{engine.world}.safetensors")
    result = finetune(config, *sets, base=clap, output_dir=folder / f"run-of{engine.world}", progress=False)
    facts = {
        "losses": losses,
        "history": result.history.to_csv(index=False),
        "processes": result.settings["processes"],
        "files": sorted(path.name for path in (folder / f"run-of{engine.world}").iterdir()),
    }
    (folder / f"facts{engine.rank}-of{engine.world}.json").write_text(json.dumps(facts))
    if engine.world > 1:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "fused")
