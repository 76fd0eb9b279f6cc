"""Every interval of Tables I to III, against the straightforward scipy loop: see `statistics_speed`.

    python benchmarks/statistics.py            # writes benchmarks/statistics.md: about 3 minutes on 2 idle cores
    python benchmarks/statistics.py --quick    # a twentieth of the resamples, printed only
"""

import importlib.util
import sys
import sysconfig
from pathlib import Path

if __name__ == "__main__":
    from statistics_speed import main

    main()
else:  # a script of this folder, or what it imports, wants Python's own `statistics`, which this file hides
    _spec = importlib.util.spec_from_file_location(
        "statistics", Path(sysconfig.get_path("stdlib")) / "statistics.py"
    )
    sys.modules[__name__] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules[__name__])
