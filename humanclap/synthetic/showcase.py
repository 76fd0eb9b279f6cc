"""Clips as a user of one's own generators would have them: a folder a system, and the prompts in one CSV."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from .captions import draw_captions
from .events import check_seconds, render_scene
from .generators import Odds, compose, draw_fault
from .pretraining import check_whole, child_rng
from .sounds import SAMPLE_RATE

SHOWCASE = {
    "faithful": Odds(),
    "forgetful": Odds(missing=0.5),
    "mistaken": Odds(replaced=0.5),
    "noisy": Odds(noisy=1.0, snr_db=(-4.0, 4.0)),
}
"""The systems of the showcase and how often each fails, and how; the first follows every prompt."""

_PROMPTS, _CLIP = 201, 202  # first keys of the child seeds, one a purpose; see plan.py


def showcase_clips(root: str | Path, seed: int = 0, n_prompts: int = 24, clip_seconds: float = 4.0) -> Path:
    """Write <system>/<number>.wav for each system of SHOWCASE and prompts.csv (audio, text, system); returns that CSV.

    Every system gets the same prompts, of the corpus's test pool. The same arguments give the same bytes; what is there
    is written over. 16 kHz, mono, 16 bit. Raises ValueError for a seed, number or length that is not allowed.
    """
    import soundfile

    check_whole(seed, "seed", 0, 2**32 - 1)
    check_whole(n_prompts, "n_prompts", 1)
    check_seconds(clip_seconds)
    root, rows = Path(root), []
    prompts = draw_captions("test", n_prompts, child_rng(_PROMPTS, seed))
    for at, (system, odds) in enumerate(SHOWCASE.items()):
        (root / system).mkdir(parents=True, exist_ok=True)
        for number, prompt in enumerate(prompts):
            rng = child_rng(_CLIP, seed, at, number)
            scene = compose(prompt, draw_fault(prompt, odds, rng), clip_seconds, rng)
            audio = f"{system}/{number:03d}.wav"
            soundfile.write(root / audio, render_scene(scene, rng), SAMPLE_RATE, subtype="PCM_16")
            rows.append({"audio": audio, "text": prompt.text, "system": system})
    pd.DataFrame(rows).to_csv(root / "prompts.csv", index=False, lineterminator="\n")
    return root / "prompts.csv"
