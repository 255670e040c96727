-- What comes with Hearth is the build's, and no tenant's rows: a row is there for what its owner
-- changed alone. A function has versions of its own, or none and is a bundled one that was changed:
-- `options` were set for it, or it was removed, since `hidden_at`. Until now each tenant had rows
-- that were given it at its birth, of `/hello`, and nobody's but its owner can have removed that.
CREATE TABLE functions_of_6 (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant     INTEGER NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    path       TEXT    NOT NULL,
    folded     TEXT    NOT NULL,
    latest     INTEGER NOT NULL, -- 0 where it never had a version of its own
    active     INTEGER,
    removed_at INTEGER,          -- its versions are forgotten a while after that
    hidden_at  INTEGER,
    options    TEXT    NOT NULL DEFAULT '{}',
    UNIQUE (tenant, folded),
    CHECK (active IS NULL OR removed_at IS NULL),
    FOREIGN KEY (id, active) REFERENCES versions_of_6 (function, version) DEFERRABLE INITIALLY DEFERRED
) STRICT;

CREATE TABLE versions_of_6 (
    function   INTEGER NOT NULL REFERENCES functions_of_6 (id) ON DELETE CASCADE,
    version    INTEGER NOT NULL CHECK (version > 0),
    sha256     TEXT    NOT NULL CHECK (length(sha256) = 64),
    size       INTEGER NOT NULL,
    stored     INTEGER NOT NULL,
    kind       TEXT    NOT NULL,
    imports    TEXT    NOT NULL, -- JSON, a list of names
    declared   TEXT    NOT NULL, -- JSON, as written: what is missing has its default
    uploaded   TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    created_by TEXT    NOT NULL,
    PRIMARY KEY (function, version)
) STRICT, WITHOUT ROWID;

-- Of the bundled version nothing stays: where it was active, what is the build's serves. A function
-- that was removed stays so.
INSERT INTO functions_of_6
    SELECT id, tenant, path, folded, latest,
        iif(EXISTS (SELECT 1 FROM versions WHERE function = id AND version = active AND NOT bundled),
            active, NULL),
        iif(EXISTS (SELECT 1 FROM versions WHERE function = id AND NOT bundled), removed_at, NULL),
        iif(folded = '/hello' OR EXISTS (SELECT 1 FROM versions WHERE function = id AND bundled),
            removed_at, NULL),
        options
    FROM functions;

INSERT INTO versions_of_6
    SELECT function, version, sha256, size, stored, kind, imports, declared, uploaded,
        created_at, created_by
    FROM versions WHERE NOT bundled;

-- Nobody ever changed these.
DELETE FROM functions_of_6
    WHERE active IS NULL AND removed_at IS NULL AND hidden_at IS NULL AND options = '{}'
    AND NOT EXISTS (SELECT 1 FROM versions_of_6 WHERE function = id);

-- It was removed, and that was forgotten since.
INSERT INTO functions_of_6 (tenant, path, folded, latest, hidden_at)
    SELECT id, '/hello', '/hello', 0, created_at FROM tenants
    WHERE generation > 0
    AND NOT EXISTS (SELECT 1 FROM functions WHERE tenant = tenants.id AND folded = '/hello');

UPDATE functions SET active = NULL, removed_at = 0;
DELETE FROM versions;
DELETE FROM functions;
DROP TABLE versions;
DROP TABLE functions;
ALTER TABLE functions_of_6 RENAME TO functions;
ALTER TABLE versions_of_6 RENAME TO versions;
CREATE INDEX versions_by_module ON versions (sha256);
