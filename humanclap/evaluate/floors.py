"""Floors: how well a predictor does that never listens to the audio.

It knows which system made a clip and reads the caption. A CLAPScore that does not beat it has not shown
that it hears.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from .captions import is_temporal, n_words
from .cells import MIN_PAIRS, system_cells
from .checks import as_vector, listed, need_columns
from .correlation import correlations

NOT_ON_TARGET_SCALE = ("words",)  # the raw number of words: an MSE against it would mean nothing


def blind_predictions(train_pairs: pd.DataFrame, test_pairs: pd.DataFrame) -> pd.DataFrame:
    """Predictions for `test_pairs` (rows and index as there) by predictors fitted on `train_pairs`.

    Pairs have `text`, `target` (0 to 1; in test it is not read) and, where known, `system`. Columns:
    - constant: mean target of train;
    - system: mean target of the clip's system in train;
    - words: number of words of the caption, as it is (not on the target's scale);
    - system+words+temporal: least squares on a dummy for each system, the number of words, and a flag for
      "followed by" or "then" in the caption.
    Without a `system` column in both (or with an empty one) the last is "words+temporal" and there is no
    "system". ValueError for a missing column, a missing or non-finite target in train, a system known in
    one set only, or one of test that train lacks.
    """
    _check("train_pairs", train_pairs, ("text", "target"))
    _check("test_pairs", test_pairs, ("text",))
    target = as_vector(train_pairs["target"], "target of train_pairs")
    words = {"train": caption_features(train_pairs), "test": caption_features(test_pairs)}
    predictions = {"constant": np.full(len(test_pairs), target.mean())}
    systems = _systems(train_pairs, test_pairs)
    if systems is None:
        dummies = {side: np.ones((len(features), 1)) for side, features in words.items()}
        together = "words+temporal"
    else:
        means = pd.Series(target).groupby(np.asarray(train_pairs["system"])).mean()
        predictions["system"] = means.loc[np.asarray(test_pairs["system"])].to_numpy()
        dummies = {side: (np.asarray(pairs["system"])[:, None] == systems[None, :]).astype(float)
                   for side, pairs in (("train", train_pairs), ("test", test_pairs))}
        together = "system+words+temporal"
    predictions["words"] = words["test"][:, 0]
    design = {side: np.hstack([dummies[side], words[side]]) for side in words}
    # lstsq takes the smallest solution where a column says nothing new (no temporal word in train, say)
    coefficients, *_ = np.linalg.lstsq(design["train"], target, rcond=None)
    # rounded, so that pairs with the same features tie exactly, wherever they stand in the matrix
    predictions[together] = np.round(design["test"] @ coefficients, 12)
    return pd.DataFrame(predictions, index=test_pairs.index)


def blind_baselines(train_pairs: pd.DataFrame, test_pairs: pd.DataFrame) -> pd.DataFrame:
    """Correlations with the test targets of predictors that never listen, fitted on train.

    Predictors: see `blind_predictions`. One row a predictor and subset of the test pairs (all; where
    systems are known also natural, synthesized and each system): predictor, subset, n, srcc, lcc, ktau,
    mse. A correlation is NaN where the predictor is constant or fewer than 4 pairs are left; the MSE of
    "words" is NaN, as it is not on the target's scale. Raises as `blind_predictions`, and ValueError for a
    missing target in test.
    """
    predictions = blind_predictions(train_pairs, test_pairs)
    _check("test_pairs", test_pairs, ("text", "target"))
    target = as_vector(test_pairs["target"], "target of test_pairs")
    known = "system" in predictions
    subsets = {"all": np.ones(len(target), dtype=bool)}
    if known:
        cells = system_cells(test_pairs["system"].to_numpy(object))
        subsets |= {cell.name: cell.rows for cell in cells if cell.rows.any()}
    rows = []
    for predictor, prediction in predictions.items():
        for subset, chosen in subsets.items():
            row = {"predictor": predictor, "subset": subset, "n": int(chosen.sum())}
            row |= dict.fromkeys(("srcc", "lcc", "ktau", "mse"), np.nan)
            if row["n"] >= MIN_PAIRS:
                row |= correlations(prediction.to_numpy()[chosen], target[chosen]).as_dict()
            if predictor in NOT_ON_TARGET_SCALE:
                row["mse"] = np.nan
            rows.append(row)
    return pd.DataFrame(rows)


def caption_features(pairs: pd.DataFrame) -> np.ndarray:
    """Number of words, and 1 where the caption says what follows what: [N, 2]."""
    return np.column_stack([n_words(pairs["text"]), is_temporal(pairs["text"])]).astype(float)


def _check(name: str, pairs: pd.DataFrame, needed: tuple[str, ...]) -> None:
    need_columns(pairs, name, needed)
    if not len(pairs):
        raise ValueError(f"{name} has no rows: nothing to fit or to predict")
    if pairs["text"].isna().any():
        raise ValueError(f"{name} has {pairs['text'].isna().sum()} missing captions in its column text")


def _systems(train_pairs: pd.DataFrame, test_pairs: pd.DataFrame) -> np.ndarray | None:
    """The systems of train, sorted, or None where neither set names any."""
    named = {}
    for name, pairs in (("train_pairs", train_pairs), ("test_pairs", test_pairs)):
        missing = pairs["system"].isna().sum() if "system" in pairs else len(pairs)
        if 0 < missing < len(pairs):
            raise ValueError(f"{name}: {missing} of {len(pairs)} rows have no system: name all or none")
        named[name] = missing == 0
    if not any(named.values()):
        return None
    if not all(named.values()):
        without = next(name for name, known in named.items() if not known)
        raise ValueError(f"{without} names no system and the other set does: add it here, or drop it there")
    known = sorted(set(train_pairs["system"]))
    unseen = sorted(set(test_pairs["system"]) - set(known))
    if unseen:
        raise ValueError(
            f"test_pairs has systems that train_pairs lacks: {listed(unseen)}. Train has "
            f"{listed(known)}: leave those test pairs out, or fit on pairs that have them"
        )
    return np.array(known, dtype=object)
