"""One fitted estimator and one ``.safetensors`` file, both ways."""

from flowmatch.persistence.files import load, save
