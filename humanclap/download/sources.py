"""What the study is made of: each file, where it comes from, how it is told from another, under which licence."""

from __future__ import annotations

from dataclasses import dataclass

from .manifest import Published
from .places import AUDIO_FOLDER

NONE_STATED = "none stated"

RELATE_REVISION = "05935d968f7c4029b8a235b82425c4d2919faf69"
RELATE_RAW = f"https://raw.githubusercontent.com/sarulab-speech/RELATE/{RELATE_REVISION}"
RELATE_SHA256 = "cea68d02735ac13a5cc3a05fafb4bc07a0342815c6a75fbf64284e39271c5dcd"
IS_SHA256 = "ef1e724be33ead60e54c797f9c52805eac7f7870a46760c855634d3a19597be4"
OS_SHA256 = "fce6baeb0a52a44e956d07a05114a5ff24d1bc95b6fadb334b639777ca565197"
RELATE_AUDIO_URL = "https://sarulab.sakura.ne.jp/kanamori/RELATE_open_dataset/RELATE_wave.zip"

HUMAN_CLAP_ID = "sarulab-speech/human-clap-wsce-mae"
HUMAN_CLAP_REVISION = "06788887d254df15db5c0ca9d54da39d46188063"
HUMAN_CLAP_SHA256 = "09357f504d52900cb1bc3bf2fe1f3173dd1702781ef0bdedb122a6e47d4c5c61"
# That repository holds the model alone; it is a fine-tuned LAION CLAP, whose front end it shares.
HUMAN_CLAP_FRONT_END = ("laion/clap-htsat-fused", "365dea6ef167def6676140ed93bbc43f84dabb28")

MODELS = {
    HUMAN_CLAP_ID: HUMAN_CLAP_REVISION,
    HUMAN_CLAP_FRONT_END[0]: HUMAN_CLAP_FRONT_END[1],
    "laion/clap-htsat-unfused": "8fa0f1c6d0433df6e97c127f64b2a1d6c0dcda8a",
}
"""Hub models with a known revision, which is what their bare id means."""

CHECKPOINTS = {
    "laion": Published(
        "lukewys/laion_clap",
        "630k-audioset-best.pt",
        "b3708341862f581175dba5c356a4ebf74a9b6651",
        "8053c9775516af2f4902e1e8281e356cc1bf7a85e8b761908170767b77c3f037",
    ),
    "laion-fusion": Published(
        "lukewys/laion_clap", "630k-audioset-fusion-best.pt", "b3708341862f581175dba5c356a4ebf74a9b6651"
    ),
    "msclap-2022": Published(
        "microsoft/msclap",
        "CLAP_weights_2022.pth",
        sha256="5b917c47fec10547b65cf1d9096e194896fa1c2d6180536c8524289721a4c5b8",
    ),
    "msclap-2023": Published("microsoft/msclap", "CLAP_weights_2023.pth"),
}
"""The checkpoint files of the named models."""

TOKENIZERS = {
    "roberta-base": "e2da8e2f811d1448a5b465c236feacd80ffbac7b",
    "bert-base-uncased": "86b5e0934494bd15c9632b12f734a8a67f723594",
    "gpt2": None,
}
"""Tokenizers on the hub and their revisions; None where no revision was written down."""

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
"""In order of preference; the second is a pickle, which is read with `weights_only=True`."""

_MB = 10**6


@dataclass(frozen=True)
class WebFile:
    """A file at a fixed address, kept at `place` below RELATE's folder."""

    url: str
    place: str
    revision: str | None = None
    sha256: str | None = None
    about_bytes: int | None = None
    """A rough size, for the disk; None where nobody wrote one down: the server is asked."""
    limit_bytes: int = 1000 * _MB
    """More than this is not what was asked for, whatever the server says."""
    begins: bytes = b""
    """How the content begins; a login page on the way does not, and no checksum would tell."""

    @property
    def published(self) -> Published:
        """As the manifest of RELATE's folder names it."""
        repository, file = self.url.rsplit("/", 1) if self.revision is None else ("sarulab-speech/RELATE", self.place)
        return Published(repository, file, self.revision, self.sha256)

    @property
    def address(self) -> str:
        """Where it comes from, for a reader."""
        return self.url


@dataclass(frozen=True)
class WebArchive(WebFile):
    """A zip at a fixed address, unpacked to `folder` below RELATE's folder."""

    folder: str = ""
    about_unpacked_bytes: int = 0


@dataclass(frozen=True)
class HubFiles:
    """Files of one hub repository at one revision; `needed` and `wanted` name them.

    Of each group in `needed` the first file that is there is taken, and without one of them all is missing; the
    first group is what the checksum and the manifest are about. `wanted` files are taken where they are there.
    """

    repository: str
    needed: tuple[tuple[str, ...], ...]
    wanted: tuple[str, ...] = ()
    revision: str | None = None
    sha256: str | None = None
    n_bytes: int | None = None
    """The exact size of the file with the checksum, where it was written down."""
    about_bytes: int | None = None
    entry: str | None = None
    """What the manifest calls it, if not by the file's own name: "model" or "tokenizer"."""

    @property
    def published(self) -> Published:
        """As the manifest of the hub's cache names it."""
        return Published(self.repository, self.entry or self.needed[0][0], self.revision, self.sha256)

    @property
    def place(self) -> str:
        """What it is called in a table."""
        return self.needed[0][0] if self.entry is None else f"{self.repository} ({self.entry})"

    @property
    def address(self) -> str:
        """Where it comes from, for a reader."""
        return f"huggingface.co/{self.repository}" + (f" @ {self.revision[:12]}" if self.revision else "")


Piece = WebFile | WebArchive | HubFiles


@dataclass(frozen=True)
class Source:
    """What `humanclap fetch NAME` brings: its pieces, with what a reader must know of their licence."""

    name: str
    about: str
    licences: dict[str, str]
    """Repository, or "" for all the others -> the licence that it states, or NONE_STATED."""
    pieces: tuple[Piece, ...]

    def licence(self, piece: Piece) -> str:
        """The licence of a piece, as its publisher states it."""
        return self.licences.get(getattr(piece, "repository", ""), self.licences[""])


def _ratings(place: str, sha256: str | None, about_bytes: int, begins: bytes = b"wavname,") -> WebFile:
    return WebFile(f"{RELATE_RAW}/{place}", place, RELATE_REVISION, sha256, about_bytes, 100 * _MB, begins)


def _checkpoint(name: str, n_bytes: int | None = None, about_bytes: int | None = None) -> HubFiles:
    what = CHECKPOINTS[name]
    return HubFiles(
        what.repository, ((what.file,),), (), what.revision, what.sha256, n_bytes, about_bytes or n_bytes
    )


_FRONT_END = (
    "preprocessor_config.json",
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
)


def _model(repository: str, sha256: str | None = None, front_end: bool = True) -> HubFiles:
    needed = (WEIGHT_FILES if sha256 is None else WEIGHT_FILES[:1], ("config.json",))
    if front_end:
        needed += (_FRONT_END[:1], ("tokenizer.json", "vocab.json"))
    return HubFiles(repository, needed, _FRONT_END, MODELS[repository], sha256, entry="model")


def _front_end(repository: str) -> HubFiles:
    needed = (_FRONT_END[:1], ("tokenizer.json", "vocab.json"))
    return HubFiles(repository, needed, _FRONT_END, MODELS[repository], about_bytes=4 * _MB, entry="front end")


def _tokenizer(repository: str) -> HubFiles:
    if repository == "bert-base-uncased":
        needed: tuple[tuple[str, ...], ...] = (("vocab.txt",),)
    else:
        needed = (("vocab.json",), ("merges.txt",))
    wanted = ("tokenizer.json", "tokenizer_config.json")
    return HubFiles(repository, needed, wanted, TOKENIZERS[repository], about_bytes=3 * _MB, entry="tokenizer")


REL = _ratings("scores/REL.csv", RELATE_SHA256, 3_400_000)
RELATE_AUDIO = WebArchive(
    RELATE_AUDIO_URL,
    "RELATE_wave.zip",
    limit_bytes=4000 * _MB,
    folder=AUDIO_FOLDER,
    about_unpacked_bytes=1900 * _MB,
)

SOURCES = {
    source.name: source
    for source in (
        Source(
            "relate",
            "RELATE: 28,770 ratings of relevance (REL), and IS, OS and the listeners' answers",
            {"": NONE_STATED},
            (
                REL,
                _ratings("scores/IS.csv", IS_SHA256, 3_200_000),
                _ratings("scores/OS.csv", OS_SHA256, 3_200_000),
                _ratings("listener_attributes/REL.csv", None, 90_000, b"listener_id,"),
                _ratings("listener_attributes/IS_and_OS.csv", None, 90_000, b"listener_id,"),
            ),
        ),
        Source(
            "relate-audio",
            "RELATE's clips, mono 16 kHz, about 10 s each",
            {"": NONE_STATED},
            (REL, RELATE_AUDIO),
        ),
        Source(
            "laion",
            "LAION CLAP: laion-clap's two checkpoints, and as transformers models",
            {"": "see the model card", "lukewys/laion_clap": "CC0-1.0", "laion/clap-htsat-fused": "Apache-2.0",
             "laion/clap-htsat-unfused": "Apache-2.0", "roberta-base": "MIT"},
            (
                _checkpoint("laion", 1_863_587_645),
                _checkpoint("laion-fusion"),
                _model("laion/clap-htsat-fused"),
                _model("laion/clap-htsat-unfused"),
                _tokenizer("roberta-base"),
            ),
        ),
        Source(
            "msclap",
            "MS CLAP 2022 and 2023",
            {"": "see the model card"},
            (
                _checkpoint("msclap-2022", 2_333_972_488),
                _checkpoint("msclap-2023", about_bytes=690 * _MB),
                _tokenizer("bert-base-uncased"),
                _tokenizer("gpt2"),
            ),
        ),
        Source(
            "human-clap",
            "the authors' released Human-CLAP (wSCE + MAE), with LAION's front end",
            {"": NONE_STATED, "laion/clap-htsat-fused": "Apache-2.0"},
            (
                _model(HUMAN_CLAP_ID, HUMAN_CLAP_SHA256, front_end=False),
                _front_end(HUMAN_CLAP_FRONT_END[0]),
            ),
        ),
    )
}  # fmt: skip
"""Name -> what `fetch(name)` brings. Revisions and checksums are those found published, and no others."""

ALL = "all"
