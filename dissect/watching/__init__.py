"""Look at a generator while it is trained: the same latents at every checkpoint, a line each, alarms.

watch = Watch("runs/training", reference="photos", segmenter="hub:./mine", latent="normal:128")
watch(generator, step)                                  # in the loop
for row in follow("checkpoints", watch, options={}):    # or from outside
    print(row["step"], row["alarms"])
"""

from .alarms import alarms
from .follow_folder import follow
from .result import Watched
from .watch import Watch

__all__ = ["Watch", "Watched", "alarms", "follow"]
