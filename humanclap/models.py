"""The registry of models: the CLAPs that have a name here, their files, and how tables and figures show them.

Revisions and checksums are those found published, or quoted by those who use the files; none was made up. docs/data.md
lists them with sizes and licences, and a test compares it with this module.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
"""A ClapModel's weights, in order of preference; the second is a pickle, which is read with `weights_only=True`."""
FRONT_END_FILE = "preprocessor_config.json"
_TEXT = ("vocab.json", "merges.txt", "vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
_FRONT_END = ((FRONT_END_FILE,), ("tokenizer.json", "vocab.json"))


@dataclass(frozen=True)
class HubFiles:
    """Files of one repository of the Hugging Face hub at one revision: what `download.hub_files` finds or fetches.

    files: groups of names; of each group the first file that the repository has is needed.
    revision: a commit or branch; None means the default branch at the time of the fetch.
    sha256: of the file of the first group; None where none is published: it is compared with what the hub states.
    optional: files that are fetched with the others where the repository has them.
    n_bytes: the exact size of the file with the checksum, where it is known.
    any_revision: another revision in the cache will do where this one can't be fetched (for tokenizers).
    part: what of the repository this is, for a reader: "model", "front end", "tokenizer"; "" for a single file.
    """

    repository: str
    files: tuple[tuple[str, ...], ...]
    revision: str | None = None
    sha256: str | None = None
    optional: tuple[str, ...] = ()
    n_bytes: int | None = None
    about_bytes: int | None = None
    licence: str = "see the model card"
    any_revision: bool = False
    part: str = ""

    @property
    def name(self) -> str:
        """What it is called in a table: "630k-audioset-best.pt", "roberta-base (tokenizer)"."""
        return f"{self.repository} ({self.part})" if self.part else self.files[0][0]


def clapmodel_files(repository: str, revision: str | None = None, **known) -> HubFiles:
    """The files of a repository that holds a whole `transformers.ClapModel` with its front end."""
    files = (WEIGHT_FILES, ("config.json",), *_FRONT_END)
    return HubFiles(repository, files, revision, optional=_TEXT, part="model", **known)


def _tokenizer(repository: str, vocabulary: str, revision: str | None, **known) -> HubFiles:
    known |= {"optional": _TEXT, "about_bytes": 3_000_000, "any_revision": True, "part": "tokenizer"}
    return HubFiles(repository, (("tokenizer.json", vocabulary),), revision, **known)


ROBERTA = _tokenizer("roberta-base", "vocab.json", "e2da8e2f811d1448a5b465c236feacd80ffbac7b", licence="MIT")
BERT = _tokenizer("bert-base-uncased", "vocab.txt", "86b5e0934494bd15c9632b12f734a8a67f723594")
GPT2 = _tokenizer("gpt2", "vocab.json", None)
FUSED = clapmodel_files("laion/clap-htsat-fused", "365dea6ef167def6676140ed93bbc43f84dabb28", licence="Apache-2.0")
UNFUSED = clapmodel_files("laion/clap-htsat-unfused", "8fa0f1c6d0433df6e97c127f64b2a1d6c0dcda8a", licence="Apache-2.0")
# Human-CLAP's repository holds the model alone. It is a fine-tuned LAION CLAP, whose front end it shares.
FUSED_FRONT_END = replace(FUSED, files=_FRONT_END, about_bytes=4_000_000, part="front end")


@dataclass(frozen=True)
class Row:
    """A row of tables and a series of figures. colour: a name in `plots.style.COLOURS`; paper: its row in paper.csv."""

    label: str
    colour: str
    marker: str
    paper: str | None = None


# Two rows that appear in one figure differ in marker, or in a colour that colour-blind readers tell apart. The stand-ins
# of the demo are shown beside the paper's rows of the real models. The paper does not say which MS CLAP or which LAION CLAP
# it took; the released Human-CLAP is its wSCE + MAE, of this version of the paper or the one before.
ROWS = {
    "laion-clap": Row("LAION CLAP", "grey", "o", "laion"),
    "laion-clapmodel": Row("LAION, ClapModel", "black", "s", "laion"),
    "laion-standin": Row("LAION stand-in", "grey", "o", "laion"),
    "msclap-2022": Row("MS CLAP 2022", "orange", "^", "msclap"),
    "msclap-2023": Row("MS CLAP 2023", "black", "v", "msclap"),
    "msclap-standin": Row("MS stand-in", "orange", "^", "msclap"),
    "human-clap-released": Row("Human-CLAP, released", "indigo", "D", "wsce+mae"),
    "wsce+mse": Row("wSCE + MSE", "sky", "s", "wsce+mse"),
    "wsce+mae": Row("wSCE + MAE", "blue", "o", "wsce+mae"),
    "wsce": Row("wSCE", "purple", "D", "wsce"),
    "mse": Row("MSE", "green", "^", "mse"),
    "mae": Row("MAE", "vermilion", "v", "mae"),
    "sce": Row("SCE, no ratings", "indigo", "P"),
    "blind": Row("never hears the audio", "orange", "X"),
}
"""Every row that has a name here: models before fine-tuning, the fine-tuning's losses, and the floor."""


@dataclass(frozen=True)
class Model:
    """A CLAP that `load_clap` knows by name.

    backend: the module of `clap/` that opens it. tokenizer: what is needed besides `weights` (for human-clap the whole
    front end of another model); None where the repository holds all. window: how a long clip is cropped by default.
    extra: the extra that it needs (`pip install '.[msclap]'`). group: its name for `humanclap fetch`. row: its row in the
    study's tables, and own_file: the name under which HUMANCLAP_CHECKPOINTS may hold another file in its place.
    """

    name: str
    about: str
    backend: str
    group: str
    weights: HubFiles
    tokenizer: HubFiles | None = None
    window: str = "first"
    extra: str | None = None
    row: str | None = None
    own_file: str | None = None

    @property
    def needs(self) -> tuple[HubFiles, ...]:
        """All that must be here before it can be opened."""
        return (self.weights,) if self.tokenizer is None else (self.weights, self.tokenizer)


def _laion(file: str, sha256: str | None = None, n_bytes: int | None = None) -> HubFiles:
    revision, known = "b3708341862f581175dba5c356a4ebf74a9b6651", {"about_bytes": n_bytes, "licence": "CC0-1.0"}
    return HubFiles("lukewys/laion_clap", ((file,),), revision, sha256, n_bytes=n_bytes, **known)


def _microsoft(file: str, sha256: str | None = None, n_bytes: int | None = None, about: int | None = None) -> HubFiles:
    return HubFiles("microsoft/msclap", ((file,),), None, sha256, n_bytes=n_bytes, about_bytes=n_bytes or about)


MODELS = {
    model.name: model
    for model in (
        Model(
            FUSED.repository, "LAION CLAP with feature fusion, as a transformers model; fine-tuning starts from it",
            "huggingface", "laion", FUSED, window="fusion", row="laion-clapmodel", own_file="laion-clapmodel",
        ),
        Model(
            "laion", "LAION CLAP without fusion, laion-clap's own checkpoint", "laion", "laion",
            _laion("630k-audioset-best.pt",
                "8053c9775516af2f4902e1e8281e356cc1bf7a85e8b761908170767b77c3f037", 1_863_587_645),
            ROBERTA,
        ),
        Model(
            "laion-fusion", "LAION CLAP with feature fusion, laion-clap's own checkpoint", "laion", "laion",
            _laion("630k-audioset-fusion-best.pt"), ROBERTA, "fusion", None, "laion-clap", "laion-clap.pt",
        ),
        Model(
            "laion/clap-htsat-unfused", "LAION CLAP without fusion, as a transformers model",
            "huggingface", "laion", UNFUSED,
        ),
        Model(
            "msclap-2022", "MS CLAP 2022", "microsoft", "msclap",
            _microsoft("CLAP_weights_2022.pth",
                "5b917c47fec10547b65cf1d9096e194896fa1c2d6180536c8524289721a4c5b8", 2_333_972_488),
            BERT, extra="msclap", row="msclap-2022", own_file="msclap-2022.pth",
        ),
        Model(
            "msclap-2023", "MS CLAP 2023", "microsoft", "msclap",
            _microsoft("CLAP_weights_2023.pth", about=690_000_000),
            GPT2, extra="msclap", row="msclap-2023", own_file="msclap-2023.pth",
        ),
        Model(
            "human-clap", "the authors' released Human-CLAP (wSCE + MAE), with LAION's front end", "huggingface", "human-clap",
            HubFiles(
                "sarulab-speech/human-clap-wsce-mae", (WEIGHT_FILES[:1], ("config.json",)), "06788887d254df15db5c0ca9d54da39d46188063",
                "09357f504d52900cb1bc3bf2fe1f3173dd1702781ef0bdedb122a6e47d4c5c61",
                (FRONT_END_FILE, *_TEXT), licence="none stated", part="model",
            ),
            FUSED_FRONT_END, "fusion", row="human-clap-released", own_file="human-clap-released",
        ),
    )
}  # fmt: skip
"""The models by name, those of the study's tables in the order of their rows. Names with a "/" are repositories of the hub."""

BASE = FUSED.repository
"""What fine-tuning starts from unless another base is named."""


def hub_model(repository: str, revision: str | None = None) -> HubFiles:
    """The files of a ClapModel on the hub: those of the registry for a repository it knows, unless `revision` differs."""
    for model in MODELS.values():
        if model.backend == "huggingface" and model.weights.repository == repository:
            if revision in (None, model.weights.revision):
                return model.weights
    return clapmodel_files(repository, revision)
