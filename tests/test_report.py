"""One's own clips: means, paired comparisons, floors and facts against plain loops; the page; which file is whose."""

from __future__ import annotations

import itertools
import math
import re

import numpy as np
import pandas as pd
import pytest
import soundfile
from matplotlib.figure import Figure

from humanclap import evaluate, report, study
from humanclap.demo import SHOWCASE, showcase_clips


def table(seed=0, n_prompts=12, systems=("good", "fair", "bad"), clips=2, failed=(), gap=0.1):
    """Scores of a few clips a prompt for each system, the later systems lower by `gap`, with what makes a score."""
    rng = np.random.default_rng(seed)
    ease = rng.normal(0, 0.15, n_prompts)
    rows = []
    for at, system in enumerate(systems):
        for prompt, clip in itertools.product(range(n_prompts), range(clips)):
            cosine = 0.5 - gap * at + ease[prompt] + rng.normal(0, 0.05)
            rows.append({"audio": f"{system}/{prompt}-{clip}.wav", "text": f"prompt {prompt}", "system": system})
            rows[-1] |= {"cosine": cosine, "clap_score": max(cosine, 0), "status": "ok"}
    made_by = {"model": "tiny", "checkpoint_sha256": "ab" * 32, "window": "first", "precision": "fp32", "device": "cpu"}
    scores = pd.DataFrame(rows).assign(**made_by)
    for row in failed:
        scores.loc[row, ["cosine", "clap_score", "status"]] = [np.nan, np.nan, "file not found"]
    return scores


def resampled(labels, n_resamples, seed):
    """Each resample's labels, written out: the draws that the package documents, in a plain loop."""
    names, rng = sorted(set(labels)), np.random.default_rng(seed)
    return [[names[i] for i in rng.integers(len(names), size=len(names))] for _ in range(n_resamples)]


# Quantiles at 0.975 of t with 11 degrees of freedom and of the normal distribution, as tables print them.
FACTOR_12 = math.sqrt(12 / 11) * 2.20098516 / 1.95996398


def expanded(drawn, value, n):
    """Ends of the 95 % interval of resamples [B], moved away from the value."""
    assert n == 12
    return np.quantile(value + FACTOR_12 * (np.asarray(drawn) - value), [0.025, 0.975]).tolist()


# --- systems --------------------------------------------------------------------------------------------


def test_means_and_intervals_are_those_of_a_plain_loop_over_prompts():
    scores = table(failed=(3,))
    means = report.system_means(scores, n_resamples=200, seed=4).set_index("system")
    for system, own in scores.groupby("system"):
        own = own[own["status"] == "ok"]
        by_prompt = {text: part["clap_score"].tolist() for text, part in own.groupby("text")}
        drawn = [np.mean(sum((by_prompt[t] for t in texts), [])) for texts in resampled(own["text"], 200, 4)]
        row = means.loc[system]
        assert row["mean"] == pytest.approx(own["clap_score"].mean())
        assert [row["low"], row["high"]] == pytest.approx(expanded(drawn, row["mean"], len(by_prompt)))
    assert means.loc["good", ["clips", "failed", "prompts"]].tolist() == [23, 1, 12]
    assert means.index.tolist() == ["good", "fair", "bad"]


def test_a_paired_difference_is_that_of_a_plain_loop_and_its_p_that_of_every_sign_pattern():
    from statsmodels.stats.multitest import multipletests

    scores = table(gap=0.02)
    found = report.compare_systems(scores, n_resamples=400, seed=1)
    for row in found.itertuples():
        per_prompt = {
            system: scores[scores["system"] == system].groupby("text")["clap_score"].mean()
            for system in (row.system, row.other)
        }
        difference = per_prompt[row.system] - per_prompt[row.other]
        drawn = np.array([difference.loc[texts].mean() for texts in resampled(difference.index, 400, 1)])
        assert row.difference == pytest.approx(difference.mean()) and row.difference >= 0
        assert [row.low, row.high] == pytest.approx(expanded(drawn, row.difference, 12))
        flipped = [np.dot(signs, difference) for signs in itertools.product((1, -1), repeat=12)]
        assert row.p == pytest.approx(np.mean(np.abs(flipped) >= abs(difference.sum()) - 1e-12))
        assert row.paired and (row.prompts, row.left_out) == (12, 0)
    assert found["p_holm"].tolist() == pytest.approx(multipletests(found["p"], method="holm")[1].tolist())


def test_systems_without_shared_prompts_have_no_p_and_do_not_count_in_holms_correction():
    scores = table(gap=0.2)
    scores.loc[scores["system"] == "bad", "text"] += " of another kind"
    found = report.compare_systems(scores).set_index(["system", "other"])
    apart = found.loc[[("good", "bad"), ("fair", "bad")]]
    assert apart[["difference", "p", "p_holm"]].isna().all(axis=None) and not apart["paired"].any()
    assert apart["note"].str.contains("cannot be told apart").all()
    row = found.loc[("good", "fair")]
    assert row["p"] == row["p_holm"] > 0
    means, references = report.system_means(scores), report.references(swapped_of(scores))
    said = report.finding(means, found.reset_index(), references)
    assert said.startswith("good scores above fair (+0.1") and "on 12 shared prompts" in said
    assert said.endswith("2 pairs of systems share no prompt and cannot be compared.")


def test_the_finding_is_one_sentence_for_equal_systems_and_for_a_single_one():
    said = []
    for scores in (table(gap=0), table(systems=("only",))):
        means, references = report.system_means(scores), report.references(swapped_of(scores))
        said.append(report.finding(means, report.compare_systems(scores), references))
    assert said[0] == "no two systems can be told apart on their prompts."
    assert said[1].startswith(f"only: mean CLAPScore {means['mean'][0]:.3f} [")
    assert f"score {references['mean'][0]:.3f}" in said[1]


def test_systems_stand_side_by_side_on_the_prompts_they_all_have():
    scores = table(failed=(0, 1))  # "good" has no score for prompt 0
    beside = report.side_by_side(scores, n=3)
    assert list(beside) == ["text", "bad", "fair", "good"] and "prompt 0" not in set(beside["text"])
    shared = scores[scores["text"] != "prompt 0"].groupby("system")["clap_score"].mean()
    means = report.system_means(scores).set_index("system")["shared_mean"]
    assert means.to_dict() == pytest.approx(shared.to_dict())


def test_a_prompt_that_failed_for_one_system_is_left_out_for_both_and_counted():
    scores = table(clips=1, failed=(0, 1))  # two prompts of "good"
    found = report.compare_systems(scores, n_resamples=200).set_index(["system", "other"])
    assert found["prompts"].tolist() == [10, 10, 12] and found["left_out"].tolist() == [2, 2, 0]
    both = scores[~scores["text"].isin(["prompt 0", "prompt 1"])].groupby("system")["clap_score"].mean()
    assert found.loc[("good", "bad"), "difference"] == pytest.approx(both["good"] - both["bad"])


def test_too_few_prompts_are_marked_and_one_system_has_nothing_to_compare():
    scores = table(n_prompts=2)
    means = report.system_means(scores)
    assert means["low"].isna().all() and set(means["note"]) == {"2 prompts, an interval needs 4"}
    found = report.compare_systems(scores)
    assert found[["low", "high", "p", "p_holm"]].isna().all(axis=None) and found["difference"].notna().all()
    assert set(found["note"]) == {"2 prompts, an interval needs 4"}
    alone = report.compare_systems(table(systems=("only",)))
    assert alone.empty and list(alone) == list(found)


def test_a_system_with_no_score_at_all_keeps_its_row():
    scores = table(systems=("good", "silent"), clips=1, failed=range(12, 24))
    means = report.system_means(scores).set_index("system")
    assert means.loc["silent", ["clips", "failed", "note"]].tolist() == [0, 12, "no clip with a score"]
    assert np.isnan(means.loc["silent", "mean"])
    assert report.compare_systems(scores).empty
    with pytest.raises(ValueError, match="none of the 12 clips has a score; the first: only/0-0.wav, file not found"):
        report.system_means(table(systems=("only",), clips=1, failed=range(12)))
    with pytest.raises(ValueError, match="the scores has no column system"):
        report.compare_systems(scores.drop(columns="system"))


# --- floor, ceiling, extremes, facts --------------------------------------------------------------------


def swapped_of(scores):
    """Scores of the same clips with other prompts: lower by a little, in the same columns."""
    other = report.other_prompts(scores[["audio", "text", "system"]], seed=0)
    kept = scores.drop(columns=["text"]).merge(other, on=["audio", "system"])
    return kept.assign(cosine=kept["cosine"] - 0.15, clap_score=(kept["cosine"] - 0.15).clip(lower=0))


def test_references_are_the_means_of_their_parts(tmp_path):
    scores = table()
    rated = scores.assign(mean_rating=np.linspace(0, 10, len(scores)), target=0.5, data="synthetic")
    swapped, pairs = swapped_of(scores), report.noise_and_silence(tmp_path / "fillers", scores["text"])
    assert len(pairs) == 24 and not soundfile.read(tmp_path / "fillers" / "silence.wav")[0].any()
    fillers = pairs.assign(clap_score=np.repeat([0.2, 0.1], 12), status="ok")
    found = report.references(swapped, fillers, rated, n_resamples=100).set_index("reference")
    assert found.loc[report.FLOOR, "mean"] == pytest.approx(swapped["clap_score"].mean())
    assert found.loc["silence, these prompts", "mean"] == pytest.approx(0.1)
    high = rated[rated["mean_rating"] >= 8]
    assert found.filter(like="8 or more", axis=0)["mean"].iloc[0] == pytest.approx(high["clap_score"].mean())
    assert found.filter(like="(synthetic)", axis=0)["clips"].tolist() == [
        len(rated[rated["mean_rating"] <= 2]),
        len(high),
    ]
    assert len(report.references(swapped)) == 1


def test_no_floor_where_prompts_cannot_be_dealt_out_and_it_says_why():
    pairs = pd.DataFrame({"audio": ["a", "b", "c"], "text": ["x", "x", "x"], "system": "one"})
    swapped = report.other_prompts(pairs)
    assert swapped.empty and "no caption may be in more than half" in swapped.attrs["note"]
    scores = table(n_prompts=1, clips=3, systems=("one",))
    found = report.references(swapped)
    assert np.isnan(found["mean"][0]) and "more than half" in found["note"][0]
    assert np.isnan(report.listens(scores, swapped)["auc"][0])


def test_auc_counts_the_comparisons_that_the_own_prompt_wins():
    scores = table(systems=("good", "bad"))
    swapped = swapped_of(scores)
    found = report.listens(scores, swapped, n_resamples=100).set_index("system")
    for system in ("good", "bad"):
        own = scores.loc[scores["system"] == system, "clap_score"]
        other = swapped.loc[swapped["system"] == system, "clap_score"]
        wins = [(a > b) + (a == b) / 2 for a in own for b in other]
        assert found.loc[system, "auc"] == pytest.approx(np.mean(wins))


def test_extremes_are_the_ends_of_the_cosine_and_none_twice():
    scores = table(failed=(0,))
    picked = report.best_and_worst(scores, n=3)
    ordered = scores["cosine"].dropna().sort_values(ascending=False).tolist()
    assert picked["cosine"].tolist() == ordered[:3] + ordered[::-1][:3]
    assert picked["place"].tolist() == ["best 1", "best 2", "best 3", "worst 1", "worst 2", "worst 3"]
    for n_clips in (1, 2, 3, 5):
        few = report.best_and_worst(table(systems=("one",), n_prompts=n_clips, clips=1))
        assert not few["audio"].duplicated().any() and len(few) == max(1, n_clips // 2 * 2)


def test_recordings_are_never_pooled_with_systems():
    scores = table(systems=("natural", "good"), failed=(0, 5))
    assert set(report.best_and_worst(scores)["system"]) == {"good"}
    facts = report.facts(scores, n_resamples=200, seed=3).set_index("fact")["value"]
    means = scores.groupby("system")["clap_score"].mean()
    assert facts["mean, natural"].startswith(f"{means['natural']:.3f} [") and facts["mean, good"].startswith(
        f"{means['good']:.3f}"
    )
    assert not any(name == "mean" for name in facts.index)
    assert facts["checkpoint_sha256"] == "ab" * 32 and facts["window"] == "first" and facts["precision"] == "fp32"
    assert facts["clips scored"] == "46 of 48" and facts["clips without a score"] == "2 file not found"
    assert "seed 3" in facts["interval by"] and re.fullmatch(r"\d{4}-\d\d-\d\d", facts["date"])
    rated = scores.dropna().assign(data="synthetic", mean_rating=5.0)
    rated["target"] = np.linspace(0, 1, len(rated))
    agreement = report.facts(scores, 200, 3, rated).set_index("fact")["value"].iloc[-1]
    assert agreement.startswith(f"SRCC {evaluate.correlations(rated['clap_score'], rated['target']).srcc:.3f} over 46")


def test_durations_and_faults_of_clips_are_counted_per_system(tmp_path):
    tone = 0.3 * np.sin(np.arange(16_000 * 12) / 9)
    waves = {"a/long.wav": tone, "a/silent.wav": np.zeros(32_000)}
    waves |= {"b/short.wav": tone[:8000], "b/clipped.wav": 5 * tone[:32_000]}
    for name, wave in waves.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        soundfile.write(tmp_path / name, wave.clip(-1, 1), 16_000)
    scores = pd.DataFrame({"audio": list(waves), "text": "x", "clap_score": 0.5, "status": "ok"})
    found = report.durations(scores.assign(system=scores["audio"].str[0]), tmp_path, 10.0).set_index("system")
    longer = "longer than the 10 s window"
    assert found.loc["a", ["clips", "shortest", "longest", longer, "silent"]].tolist() == [2, 2, 12, 1, 1]
    assert found.loc["b", ["under 1 s", "clipped", "silent", longer]].tolist() == [1, 1, 0, 0]


# --- the page -------------------------------------------------------------------------------------------


def test_the_page_needs_no_other_file_and_nothing_in_it_is_code(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(1600), 16_000)
    (tmp_path / "long.wav").write_bytes(b"\0" * 3_000_001)
    figure = Figure()
    figure.subplots()
    evil = "<script>alert(1)</script> & co"
    shown = pd.DataFrame(
        {"text": [evil], "p": [1e-5], "difference": [0.12345], "low": [np.nan], "high": [np.nan], "note": [""]}
    )
    sections = [
        report.Section("Systems", evil, shown, figure),
        report.Section("Sounds", clips={evil: tmp_path / "a.wav", "long": tmp_path / "long.wav"}),
    ]
    path = report.write_page(tmp_path / "sub" / "page.html", evil, f"{evil} wins.", {"Data": "synthetic"}, sections)
    page = path.read_text(encoding="utf-8")
    assert "<script" not in page and page.count("&lt;script") >= 5
    assert page.index("wins.") < page.index("synthetic") < page.index("<h2>")  # the finding comes first
    assert "&lt; 0.001" in page and "+0.123<" in page and "<th>note" not in page and "too large" in page
    assert str(tmp_path) not in page
    sources = re.findall(r'src="([^"]{0,30})', page)
    assert len(sources) == 2 and all(source.startswith("data:") for source in sources)


# --- which clip has which prompt ------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("HUMANCLAP_RUNS", str(tmp_path / "runs"))
    return study.open_study("demo", "05_score_your_own_audio", audio_folder="", prompts="", clap="")


def folder_of(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.zeros(1600), 16_000) if path.suffix == ".wav" else path.write_text(name)
    return root


def test_a_csv_names_clips_prompts_and_systems(run, tmp_path):
    root = folder_of(tmp_path / "mine", "a.wav", "b.wav", "c.wav")
    (root / "list.csv").write_text("audio;text;system;mood\na.wav;A dog;x;good\ngone.wav;Rain;y;bad\n")
    clips = study.own_clips(run, str(root), str(root / "list.csv"))
    rows = list(clips.pairs.itertuples(index=False, name=None))
    assert rows == [("a.wav", "A dog", "x"), ("gone.wav", "Rain", "y")] and clips.label == "clips of mine"
    said = str(clips)
    assert "columns not read: mood" in said and "2 clips have no prompt and are not scored: b.wav, c.wav" in said
    assert "1 prompts have no clip and count as failures: gone.wav" in said


def test_text_files_beside_clips_and_systems_by_folder(run, tmp_path):
    root = folder_of(tmp_path / "mine", "x/1.wav", "x/1.txt", "y/1.wav", "y/1.txt", "y/2.txt")
    clips = study.own_clips(run, str(root))
    assert clips.pairs["system"].tolist() == ["x", "y"] and clips.pairs["text"].tolist()[0] == "x/1.txt"
    assert clips.pairs["audio"].tolist() == ["x/1.wav", "y/1.wav"]
    assert "1 .txt files have no clip: y/2" in str(clips)
    flat = folder_of(tmp_path / "flat", "1.wav", "1.txt", "x/2.wav", "x/2.txt")
    assert set(study.own_clips(run, str(flat)).pairs["system"]) == {"all clips"}


def test_the_demos_clips_are_labelled_and_the_same_again(run, tmp_path):
    clips = study.own_clips(run, seed=1)
    assert clips.label == "synthetic" and set(clips.pairs["system"]) == set(SHOWCASE)
    roots = clips.root, showcase_clips(tmp_path / "again", seed=1).parent
    first, second = ({p.parent.name + p.name: p.read_bytes() for p in root.rglob("*.wav")} for root in roots)
    assert first == second and len(first) == len(clips.pairs)


def test_one_table_of_prompts_serves_a_folder_per_system(run, tmp_path):
    root = folder_of(tmp_path / "mine", "x/p1.wav", "x/p2.wav", "y/p1.wav", "notes/list.txt")
    (tmp_path / "prompts.csv").write_text("id,prompt\np1,A dog\np2,Rain\n")
    clips = study.own_clips(run, str(root), str(tmp_path / "prompts.csv"))
    rows = list(clips.pairs.itertuples(index=False, name=None))
    assert rows == [
        ("x/p1.wav", "A dog", "x"),
        ("x/p2.wav", "Rain", "x"),
        ("y/p1.wav", "A dog", "y"),
        ("y/p2", "Rain", "y"),
    ]
    assert "1 prompts have no clip and count as failures: y/p2" in str(clips)
    (tmp_path / "with_system.csv").write_text("file,text,system\np1.wav,A dog,y\np2.wav,Rain,x\n")
    clips = study.own_clips(run, str(root), str(tmp_path / "with_system.csv"))
    assert clips.pairs["audio"].tolist() == ["y/p1.wav", "x/p2.wav"] and clips.pairs["system"].tolist() == ["y", "x"]


def test_the_chosen_clap_has_a_name_that_tells_checkpoints_apart(run, tmp_path):
    for seed in (0, 1):
        (tmp_path / f"tuned/mae/seed{seed}/model").mkdir(parents=True)
    names = {study.chosen_clap(run, clap=str(tmp_path / f"tuned/mae/seed{seed}/model"))[0].name for seed in (0, 1)}
    assert names == {"tuned/mae/seed0/model", "tuned/mae/seed1/model"}
    assert study.chosen_clap(run, clap="msclap-2023")[0].clap == "msclap-2023"
    model = run.path("human-clap/mae/seed1/model")
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    choice = pd.DataFrame({"model": ["mse", "mae"], "validation_srcc": [0.1, 0.2], "chosen": [False, True]})
    choice["training_seed"] = 1
    run.save_table(choice, "03_choice", "synthetic")
    found, why = study.chosen_clap(run)
    assert found.clap == str(model) and found.name == "human-clap/mae/seed1" and "validation" in why


def test_rated_scores_are_those_of_the_same_clap_only(run):
    scores = table(systems=("one",))
    assert study.rated_scores(run, scores) is None
    rated = scores.assign(mean_rating=5.0, target=0.5)
    run.save_table(pd.concat([rated.assign(checkpoint_sha256="cd" * 32), rated]), "01_scores", "synthetic", exact=True)
    found = study.rated_scores(run, scores)
    assert len(found) == len(rated) and set(found["data"]) == {"synthetic"}
    assert study.rated_scores(run, scores.assign(window="mean")) is None


def test_wrong_parameters_of_the_notebook(run, tmp_path, monkeypatch):
    with pytest.raises(study.ParameterError, match="clap=3: allowed is text, what load_clap takes"):
        study.open_study("demo", "05_score_your_own_audio", clap=3)
    with pytest.raises(study.StudyError, match="without audio_folder: name the folder"):
        study.own_clips(run, prompts="list.csv")
    # the paper profile scores RELATE's test clips where no folder is named, and has none here
    (tmp_path / "relate" / "scores").mkdir(parents=True)
    header = "wavname,text,score,listener_id,audio type,anchor label,in RELATE dataset,in AudioCaps\n"
    row = "/audiocaps/test/1.wav,A dog barks,8,0001,natural,False,test,test\n"
    (tmp_path / "relate" / "scores" / "REL.csv").write_text(header + row, encoding="utf-8")
    monkeypatch.setenv("HUMANCLAP_RELATE", str(tmp_path / "relate"))
    with pytest.raises(study.StudyError, match="1 of 1 clips are not in .*humanclap fetch relate-audio"):
        study.own_clips(study.open_study("paper", "05_score_your_own_audio"))
