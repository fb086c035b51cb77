"""As few settings as an application with one database needs."""

import os

SECRET_KEY = "for an example only"
INSTALLED_APPS = ["shop"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": os.environ.get("PGDATABASE", "shop"),
        "USER": os.environ.get("PGUSER", "app"),
        "HOST": os.environ.get("PGHOST", ""),
        "PORT": os.environ.get("PGPORT", ""),
        # Only a superuser may create the extension, so the test database is a copy of one that has it.
        "TEST": {"TEMPLATE": "template_coco"},
    }
}
