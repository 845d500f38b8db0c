"""docs/claims.md 重新写一遍 / Writes docs/claims.md anew: see harness/claims.py."""

import sys

from tests.harness import NOTEBOOKS, claims, fresh


def main(chosen):
    parts = []
    for path in NOTEBOOKS:
        if not chosen or path.stem.startswith(chosen):
            print(path.stem, flush=True)
            parts.append(claims.section(fresh.run(path)))
        else:
            parts.append(claims.stored(path))
    text = "\n\n".join([claims.HEAD.strip(), *("\n".join(part).strip() for part in parts if part)])
    claims.LIST.write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main(tuple(sys.argv[1:]))
