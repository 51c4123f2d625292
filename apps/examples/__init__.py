"""Short programs that train the upsampling networks of `kerascnn.decoders` on real digits."""

import os

from apps.startup import import_tensorflow

if os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow":
    import_tensorflow()  # without its start-up chatter, before anything else imports it
