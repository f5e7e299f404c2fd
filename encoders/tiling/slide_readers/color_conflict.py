"""The refusal of a slide whose tiles are of another colour space than the slide says, where none can be believed."""

from encoders.errors import UnreadableSlide


class ColorConflict(UnreadableSlide):
    """The file is intact, but its colours would be wrong; raised while opening or at the first such tile."""


def color_conflict() -> ColorConflict:
    """For tiles that cannot be read in the colours that they declare."""
    return ColorConflict(
        "The colours of the slide cannot be trusted: tiles are compressed in another colour space than the file says. "
        "Export it again from the scanner's original file."
    )


def false_colors() -> ColorConflict:
    """For a picture that no slide shows."""
    return ColorConflict(
        "The colours of the slide are wrong: its glass is strongly coloured, as when RGB and YCbCr are confused. "
        "Export it again from the scanner's original file."
    )


def negative_picture() -> ColorConflict:
    """For tissue in the complements of a stain's colours on a dark ground."""
    return ColorConflict(
        "The picture is inverted, as a negative is, or was taken in fluorescence: green tissue on a dark ground. Send "
        "the scan of a bright-field stain as it was made."
    )
