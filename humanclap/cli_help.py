"""What `humanclap --help` and `humanclap COMMAND --help` teach."""

from __future__ import annotations

ABOUT = """\
Human-CLAP: does this sound match this text, as people hear it?

  humanclap screen REL.csv --out pairs.csv                        # which pairs people rated, and how
  humanclap score pairs.csv --clap human-clap --out scores.csv    # how well sound and text match
  humanclap merge part-*.csv --out scores.csv                     # scores of several machines as one
  humanclap convert 630k-audioset-best.pt folder --to clapmodel   # LAION's checkpoints, there and back
  humanclap fetch relate                                          # public data and weights, checked

`humanclap COMMAND --help` explains a command. Exit status: 0 all is well, 1 some files have no score or could
not be fetched, 2 the input is wrong (one line says what), 130 stopped."""

SCORE = """\
Score every pair of a CSV with the columns audio and text: CLAPScore = max(cosine, 0).

The table that comes out has the columns of the CSV and: cosine, clap_score, status ("ok", or why the file has
no score), model, checkpoint_sha256, window, precision, device. A file that can't be read keeps its row."""

SCORE_EXAMPLES = """\
examples:
  humanclap score pairs.csv --clap human-clap --out scores.csv
      The authors' released model; fetched once, then found in the hub cache.
  humanclap score pairs.csv --clap laion --audio-root RELATE_wave --out scores.csv
      Paths in the CSV are below RELATE_wave. Also known: laion-fusion, msclap-2022, msclap-2023.
  humanclap score pairs.csv --clap my-clap/ --precision bf16 --out scores.csv
      The folder of a transformers.ClapModel (or a .pt, a .pth, a hub id), computed in bfloat16.
  humanclap score pairs.csv --clap laion --shard 1/4 --out part-1.csv
      The first quarter of the rows. Score 2/4, 3/4 and 4/4 elsewhere, then:
      humanclap merge part-*.csv --out scores.csv

A run that was stopped goes on where it was when the same command is given again: embeddings are kept in the
cache folder as they are made, by the content of the file, the weights and all settings."""

MERGE = """\
Put the score tables of all shards together, in the order of the pairs. Refuses shards that are missing, given
twice, not whole, of another table or of another model, so that no row is lost and none is there twice."""

MERGE_EXAMPLES = """\
example:
  humanclap score pairs.csv --clap laion --shard 1/2 --out part-1.csv    # on one machine
  humanclap score pairs.csv --clap laion --shard 2/2 --out part-2.csv    # on another
  humanclap merge part-1.csv part-2.csv --out scores.csv"""

SCREEN = """\
From single ratings to rated pairs, as the paper does it: listeners who rate mismatched pairs (anchors) above
the threshold on average are removed, with all they rated, and each pair left gets its mean rating (0-10), its
standard deviation, the number of ratings, and target = mean / 10."""

SCREEN_EXAMPLES = """\
examples:
  humanclap screen RELATE/scores/REL.csv --out pairs.csv
      The paper's threshold of 2: 2,892 pairs for training and 2,892 for testing.
  humanclap screen RELATE/scores/REL.csv --max-anchor-mean 1 --split test --out test.csv"""

CONVERT = """\
LAION's own checkpoint to the folder of a transformers.ClapModel (with preprocessor and tokenizer), or back.
No weight is lost: a key that the table of names does not know stops the conversion. Embeddings agree to about
1e-7."""

CONVERT_EXAMPLES = """\
examples:
  humanclap convert 630k-audioset-best.pt laion-clap/ --to clapmodel
      Then: transformers.ClapModel.from_pretrained("laion-clap"), or humanclap score ... --clap laion-clap/
  humanclap convert my-human-clap/ my-human-clap.pt --to laion --base 630k-audioset-best.pt
      Then: laion_clap.CLAP_Module(...).load_ckpt("my-human-clap.pt"). LAION's checkpoints hold heads that a
      ClapModel does not have and no score uses; they are taken from --base."""

FETCH = """\
Bring public data and weights: pinned revisions, checked by SHA-256; what has no published one is held to what it
was at its first use. RELATE goes to data/relate, weights to the hub's cache; with --to DIR, or HUMANCLAP_DATA, to
DIR/relate and DIR/weights. HUMANCLAP_RELATE names the folder of RELATE itself. What is here is not fetched again.

A download that was stopped or broke off goes on where it was when the same command is given again. Proxies are
those of the environment (https_proxy). Files copied by hand to the same places count as well."""

FETCH_EXAMPLES = """\
examples:
  humanclap fetch --list
      What there is, how large, from where, under which licence.
  humanclap fetch relate
      The ratings, 10 MB. relate-audio: the clips, about 1.9 GB unpacked and room for the archive.
  humanclap fetch all --to /media/disk
      All of it into one folder, for a machine without a network: set HUMANCLAP_DATA to that folder there.
  humanclap fetch xacle
      Says whom to ask for XACLE's ratings and clips, which are given out by e-mail only."""
