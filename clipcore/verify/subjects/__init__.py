"""Ready-made subjects: clipping functions of other frameworks, of clipcore itself and those written by hand.

No framework is imported before a subject is built.
"""

from __future__ import annotations

from clipcore.verify.subjects import (
    _clipcore,
    _jax,
    _jax_privacy,
    _keras,
    _mlx,
    _numpy,
    _opacus,
    _optax,
    _paddle,
    _tensorflow,
    _torch,
)
from clipcore.verify.subjects._ready_made import ReadyMade, missing, version_of

__all__ = ["ReadyMade", "missing", "ready_made", "version_of"]


def ready_made() -> tuple[ReadyMade, ...]:
    """Return all ready-made subjects in a fixed order, whether they can run here or not.

    Examples
    --------
    >>> from clipcore.verify.subjects import ready_made
    >>> [subject.operation for subject in ready_made() if subject.name == "by-hand"][:2]
    ['clip_by_global_norm', 'clip_by_l1_norm']
    """
    return (
        *_clipcore.SUBJECTS,
        *_numpy.SUBJECTS,
        *_torch.SUBJECTS,
        *_opacus.SUBJECTS,
        *_jax.SUBJECTS,
        *_optax.SUBJECTS,
        *_jax_privacy.SUBJECTS,
        *_tensorflow.SUBJECTS,
        *_keras.subjects(),
        *_mlx.SUBJECTS,
        *_paddle.SUBJECTS,
    )
