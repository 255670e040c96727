-- Instants are milliseconds since the epoch.

CREATE TABLE host (
    key   TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT;

-- AUTOINCREMENT: the id of a removed tenant is never given to another.
CREATE TABLE tenants (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    name       TEXT    NOT NULL UNIQUE,
    port       INTEGER NOT NULL UNIQUE CHECK (port BETWEEN 1 AND 65535),
    generation INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE generations (
    tenant     INTEGER NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    generation INTEGER NOT NULL CHECK (generation > 0),
    cause      TEXT    NOT NULL,
    by         TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (tenant, generation)
) STRICT, WITHOUT ROWID;

-- One row for each path that a tenant serves, or served before it was removed. `latest` is the
-- highest version that there ever was, so that a number is not given twice.
CREATE TABLE functions (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant     INTEGER NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    path       TEXT    NOT NULL,
    folded     TEXT    NOT NULL,
    latest     INTEGER NOT NULL,
    active     INTEGER,
    removed_at INTEGER,
    UNIQUE (tenant, folded),
    CHECK ((active IS NULL) = (removed_at IS NOT NULL)),
    FOREIGN KEY (id, active) REFERENCES versions (function, version) DEFERRABLE INITIALLY DEFERRED
) STRICT;

CREATE TABLE versions (
    function   INTEGER NOT NULL REFERENCES functions (id) ON DELETE CASCADE,
    version    INTEGER NOT NULL CHECK (version > 0),
    sha256     TEXT    NOT NULL CHECK (length(sha256) = 64),
    size       INTEGER NOT NULL,
    stored     INTEGER NOT NULL,
    kind       TEXT    NOT NULL,
    imports    TEXT    NOT NULL, -- JSON, a list of names
    options    TEXT    NOT NULL, -- JSON, as written: what is missing has its default
    bundled    INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    created_by TEXT    NOT NULL,
    PRIMARY KEY (function, version)
) STRICT, WITHOUT ROWID;

CREATE INDEX versions_by_module ON versions (sha256);

-- The keyed digest of each compiled artifact. Tenant 0 stands for the bundled functions, which
-- is why it refers to nothing.
CREATE TABLE artifacts (
    tenant     INTEGER NOT NULL,
    sha256     TEXT    NOT NULL CHECK (length(sha256) = 64),
    engine     TEXT    NOT NULL,
    mac        BLOB    NOT NULL CHECK (length(mac) = 32),
    created_at INTEGER NOT NULL,
    PRIMARY KEY (tenant, sha256, engine)
) STRICT, WITHOUT ROWID;

-- `adopted`: given by the operator's configuration, and replaced when that changes.
CREATE TABLE tokens (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant     INTEGER REFERENCES tenants (id) ON DELETE CASCADE,
    name       TEXT    NOT NULL,
    scope      TEXT    NOT NULL,
    digest     BLOB    NOT NULL UNIQUE CHECK (length(digest) = 32),
    adopted    INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    CHECK ((scope = 'admin') = (tenant IS NULL))
) STRICT;

CREATE INDEX tokens_by_tenant ON tokens (tenant);
