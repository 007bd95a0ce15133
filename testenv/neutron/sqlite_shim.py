"""Has Neutron try again where sqlite says that the database is locked. For tests: real clouds run MySQL."""

import sqlite3

from oslo_db import exception
from oslo_db.sqlalchemy import exc_filters
from sqlalchemy import event, exc
from sqlalchemy.engine import Engine


@exc_filters.filters("sqlite", exc.OperationalError, r".*database is locked.*")
def _locked(error, match, engine_name, is_disconnect):
    raise exception.DBDeadlock(error)


@event.listens_for(Engine, "connect")
def _connect(connection, record):
    if isinstance(connection, sqlite3.Connection):
        for pragma in ("foreign_keys=ON", "journal_mode=WAL", "busy_timeout=20000", "synchronous=OFF"):
            connection.execute(f"PRAGMA {pragma}").close()
