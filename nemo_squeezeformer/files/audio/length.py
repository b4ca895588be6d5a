"""The comparison of the length of an audio file with the length in its header."""

from nemo_squeezeformer.errors import UserError


def slack(seconds: float) -> float:
    """Return the largest difference between two lengths in seconds that is not an error.

    Encoders of lossy formats add padding, and durations in manifests are rounded.
    """
    return max(0.25, 0.02 * seconds)


def refuse_cut(name: str, seconds: float, declared: float) -> None:
    """Raise UserError if the file has fewer ``seconds`` than its header has ``declared``."""
    if declared - seconds > slack(declared):
        raise UserError(
            f"audio file {name!r} is cut: the file has {seconds:.2f} s, but its header says {declared:.2f} s; copy the "
            "file again from its source"
        )
