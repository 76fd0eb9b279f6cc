"""Floors: how well a predictor does that never listens to the audio.

It knows which system made a clip and reads the caption. A CLAPScore that does not beat it has not shown that it hears.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from humanclap.checks import listed, need_columns

from .bootstrap import correlations
from .inputs import ALL, MIN_PAIRS, as_vector, is_temporal, known_systems, n_words, system_cells
from .weighted import METRICS

CONSTANT, SYSTEM, WORDS, RIDGE = "constant", "system", "words", "ridge on caption and system"
RIDGE_ALONE = "ridge on caption"  # where no system is known
PENALTIES = (10, 30, 100, 300, 1000, 3000)
SYSTEM_SCALE = 3.0  # of the systems' dummies beside the words': a ninth of their penalty
FOLDS = 5


def blind_predictions(train_pairs: pd.DataFrame, test_pairs: pd.DataFrame) -> pd.DataFrame:
    """Predictions for `test_pairs` (rows and index as there) by predictors fitted on `train_pairs`.

    Pairs have `text`, `target` (0 to 1; in test it is not read) and, where known, `system`. Columns:
    - constant: mean target of train;
    - system: mean target of the clip's system in train;
    - words: number of words of the caption, as it is (not on the target's scale);
    - system+words+temporal: least squares on a dummy for each system, the number of words, and a flag for "followed by"
      or "then" in the caption: the floor that three parameters explain;
    - ridge on caption and system: ridge regression on the caption's bag of words (which of the words that two captions
      of train have are in it), the number of words, the flag, and a dummy for each system; a pair weighs as many as it
      has ratings (`n_ratings`, where known); the penalty has the lowest MSE in a cross-validation over train's captions.
    Without a `system` column in both (or with an empty one) there is no "system", and the last two read the caption
    alone ("words+temporal", "ridge on caption"). ValueError for a missing column, a missing or non-finite target in
    train, a system known in one set only, or one of test that train lacks.
    """
    return _predictions(train_pairs, test_pairs)[0]


def _predictions(train_pairs: pd.DataFrame, test_pairs: pd.DataFrame, penalty: float | None = None):
    """`blind_predictions`, and the ridge's penalty: the one given, or (None) the one found."""
    for name, pairs, needed in (("train_pairs", train_pairs, ["text", "target"]), ("test_pairs", test_pairs, ["text"])):
        need_columns(pairs, name, needed)
        need_columns(pairs, name, ["text"], filled=True)
        if not len(pairs):
            raise ValueError(f"{name} has no rows: nothing to fit or to predict")
    target = as_vector(train_pairs["target"], "target of train_pairs")
    systems = _systems(train_pairs, test_pairs)
    words = caption_features(test_pairs)[:, 0]
    predictions = {CONSTANT: np.full(len(test_pairs), target.mean())}
    if systems is not None:
        means = pd.Series(target).groupby(np.asarray(train_pairs["system"])).mean()
        predictions[SYSTEM] = means.loc[np.asarray(test_pairs["system"])].to_numpy()
    train, test = (np.hstack([_dummies(p, systems), caption_features(p)]) for p in (train_pairs, test_pairs))
    # lstsq takes the smallest solution where a column says nothing new (no temporal word in train, say)
    coefficients, *_ = np.linalg.lstsq(train, target, rcond=None)
    together = "words+temporal" if systems is None else "system+words+temporal"
    # rounded, so that pairs with the same features tie exactly, wherever they are in the matrix
    predictions |= {WORDS: words, together: np.round(test @ coefficients, 12)}
    ridge, penalty = _ridge(train_pairs, test_pairs, target, systems, penalty)
    predictions[RIDGE_ALONE if systems is None else RIDGE] = ridge
    return pd.DataFrame(predictions, index=test_pairs.index), penalty


@dataclass(frozen=True)
class Floor:
    """The strongest blind predictor: its `name`, its `predictions` for the test pairs, SRCC by cross-validation."""

    name: str
    predictions: pd.Series
    cross_validated: dict[str, float]


def strongest_blind(train_pairs: pd.DataFrame, test_pairs: pd.DataFrame) -> Floor:
    """The blind predictor with the highest SRCC on train, by cross-validation over captions; no test target is read.

    `cross_validated` has the SRCC of every predictor (`blind_predictions`), of the train pairs as left out in five
    folds. With fewer than two captions for each fold there is none, and the floor is the three-parameter guess.
    """
    train_pairs = train_pairs.reset_index(drop=True)
    predictions, penalty = _predictions(train_pairs, test_pairs)
    _, srcc = _cross_fitted(train_pairs, penalty, list(predictions.columns[1:]))
    best = _best(srcc, list(predictions.columns))
    return Floor(best, predictions[best], srcc)


def cross_fitted_blind(pairs: pd.DataFrame) -> Floor:
    """The strongest blind predictor of `pairs` that have no train pairs beside them: each fold of captions from the others.

    `pairs` as the train pairs of `blind_predictions`. ValueError, too, for fewer than ten captions, and for a system whose
    captions are all in one fold.
    """
    pairs = pairs.reset_index(drop=True)
    predictions, penalty = _predictions(pairs, pairs)
    left_out, srcc = _cross_fitted(pairs, penalty, list(predictions.columns[1:]))
    if left_out is None:
        raise ValueError(f"cross-fitting needs at least {2 * FOLDS} captions, there are {pairs['text'].nunique()}")
    best = _best(srcc, list(predictions.columns))
    if left_out[best].isna().any():
        alone = listed(sorted(set(pairs["system"][left_out[best].isna()])))
        raise ValueError(f"cross-fitting by caption needs several captions of each system; too few of {alone}")
    return Floor(best, left_out[best], srcc)


def _best(srcc: dict[str, float], names: list[str]) -> str:
    guess = next(name for name in names if name.endswith("words+temporal"))
    return max(srcc, key=lambda name: (np.nan_to_num(srcc[name], nan=-2.0), name == guess), default=guess)


def _cross_fitted(train_pairs: pd.DataFrame, penalty: float, names: list[str]) -> tuple[pd.DataFrame | None, dict]:
    """What each predictor says of the pairs of a fold, fitted on the other folds, and its SRCC; None for too few."""
    folds = _folds(train_pairs["text"])
    if folds is None:
        return None, {}
    target, left_out = train_pairs["target"].to_numpy(float), np.full((len(train_pairs), len(names)), np.nan)
    for fold in np.unique(folds):
        inside, outside = train_pairs[folds != fold], train_pairs[folds == fold]
        if SYSTEM in names:  # a system whose captions are all in this fold can't be predicted
            outside = outside[outside["system"].isin(set(inside["system"]))]
        if len(outside):
            left_out[outside.index] = _predictions(inside, outside, penalty)[0][names].to_numpy()
    known = np.isfinite(left_out).all(axis=1)
    srcc = {name: correlations(left_out[known, i], target[known]).srcc for i, name in enumerate(names)}
    return pd.DataFrame(left_out, columns=names), srcc


def blind_baselines(train_pairs: pd.DataFrame, test_pairs: pd.DataFrame) -> pd.DataFrame:
    """Correlations with the test targets of predictors that never listen, fitted on train.

    Predictors: see `blind_predictions`. One row per predictor and subset of the test pairs (all; where systems are
    known also natural, synthesized and each system): predictor, subset, n, srcc, lcc, ktau, mse. A correlation is NaN
    where the predictor is constant or fewer than 4 pairs are left; the MSE of "words" is NaN, as it is not on the
    target's scale. Raises as `blind_predictions`, and ValueError for a missing target in test.
    """
    predictions = blind_predictions(train_pairs, test_pairs)
    need_columns(test_pairs, "test_pairs", ("target",))
    target = as_vector(test_pairs["target"], "target of test_pairs")
    subsets = {ALL: np.ones(len(target), dtype=bool)}
    if SYSTEM in predictions:
        cells = system_cells(test_pairs["system"].to_numpy(object))
        subsets |= {cell.name: cell.rows for cell in cells if cell.rows.any()}
    rows = []
    for predictor, prediction in predictions.items():
        for subset, chosen in subsets.items():
            found, n = dict.fromkeys(METRICS, np.nan), int(chosen.sum())
            if n >= MIN_PAIRS:
                found = correlations(prediction.to_numpy()[chosen], target[chosen]).as_dict()
            # the number of words is not on the target's scale: an MSE against it would mean nothing
            found |= {"n": n, "mse": np.nan if predictor == WORDS else found["mse"]}
            rows.append({"predictor": predictor, "subset": subset, **found})
    return pd.DataFrame(rows)[["predictor", "subset", "n", *METRICS]]


def caption_features(pairs: pd.DataFrame) -> np.ndarray:
    """Number of words, and 1 where the caption says what follows what: [N, 2]."""
    return np.column_stack([n_words(pairs["text"]), is_temporal(pairs["text"])]).astype(float)


def _dummies(pairs: pd.DataFrame, systems: np.ndarray | None) -> np.ndarray:
    """1 where a pair is of a system, [N, S]; without systems a constant."""
    return np.ones((len(pairs), 1)) if systems is None else (pairs[["system"]].to_numpy() == systems).astype(float)


def _folds(texts: pd.Series) -> np.ndarray | None:
    """A fold for each pair, all pairs of a caption in one; None for too few captions. Rows' order does not matter."""
    codes = pd.factorize(texts, sort=True)[0]
    n_captions = int(codes.max(initial=-1)) + 1
    if n_captions < 2 * FOLDS:
        return None
    return np.random.default_rng(0).permutation(np.arange(n_captions) % FOLDS)[codes]


def _ridge(train_pairs, test_pairs, target: np.ndarray, systems: np.ndarray | None, penalty: float | None):
    """Predictions of the ridge regression [n], rounded so that equal pairs tie, and its penalty."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import GridSearchCV, PredefinedSplit

    texts = train_pairs["text"].astype(str)
    try:
        counter = CountVectorizer(binary=True, min_df=2).fit(texts.drop_duplicates())
    except ValueError:  # no word is in two captions
        counter = CountVectorizer(vocabulary=["none"])

    def features(pairs: pd.DataFrame) -> np.ndarray:
        words = counter.transform(pairs["text"].astype(str)).toarray()
        return np.hstack([SYSTEM_SCALE * _dummies(pairs, systems), words, caption_features(pairs) / (4.0, 0.5)])

    train, model, folds = features(train_pairs), Ridge(alpha=penalty or PENALTIES[2], solver="cholesky"), None
    known = "n_ratings" in train_pairs and train_pairs["n_ratings"].notna().all()
    weight = train_pairs["n_ratings"].to_numpy(float) if known else np.ones(len(target))
    if penalty is None and (folds := _folds(train_pairs["text"])) is not None:
        grid, split = {"alpha": PENALTIES}, PredefinedSplit(folds)
        search = GridSearchCV(model, grid, scoring="neg_mean_squared_error", cv=split, refit=False)
        model.set_params(**search.fit(train, target, sample_weight=weight).best_params_)
    return np.round(model.fit(train, target, sample_weight=weight).predict(features(test_pairs)), 8), model.alpha


def _systems(train_pairs: pd.DataFrame, test_pairs: pd.DataFrame) -> np.ndarray | None:
    """The systems of train, sorted, or None where neither set names any."""
    train, test = known_systems(train_pairs), known_systems(test_pairs)
    if train is None and test is None:
        return None
    if train is None or test is None:
        without = "train_pairs" if train is None else "test_pairs"
        raise ValueError(f"{without} names no system and the other set does: add it here, or drop it there")
    known, unseen = sorted(set(train)), sorted(set(test) - set(train))
    if unseen:
        raise ValueError(
            f"test_pairs has systems that train_pairs lacks: {listed(unseen)}. Train has {listed(known)}: leave those "
            "test pairs out, or fit on pairs that have them"
        )
    return np.array(known, dtype=object)
