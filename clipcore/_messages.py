"""How values look in messages."""

__all__ = ["shown"]


def shown(value: object) -> str:
    """Return the value as a message shows it, cut where it is long."""
    try:
        text = repr(value)
    except ValueError:  # Python prints no int of more than 4300 digits
        text = f"an int of {value.bit_length()} bits" if isinstance(value, int) else type(value).__name__
    return text if len(text) <= 60 else text[:57] + "..."
