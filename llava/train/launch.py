"""torchrun without its traceback: `python -m llava.train.launch [torchrun's flags] PROGRAM [its flags]`.

The process that failed has said why.
"""

import sys

from torch.distributed import run
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError


def main() -> None:
    try:
        run.main()
    except SignalException as stop:
        # The workers have said so.
        sys.exit(128 + stop.sigval)
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        if failure.exitcode < 0:
            print(
                f"error: the process of rank {failure.rank} was killed by signal {-failure.exitcode}", file=sys.stderr
            )
        sys.exit(1)


if __name__ == "__main__":
    main()
