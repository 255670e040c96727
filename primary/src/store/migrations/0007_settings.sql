-- What a tenant tells its functions: configuration, which has a value, and secrets, which are sealed by
-- a key that is in no table. One name is one of both.
CREATE TABLE settings (
    id        INTEGER PRIMARY KEY,
    tenant    INTEGER NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    name      TEXT    NOT NULL CHECK (length(name) BETWEEN 1 AND 128),
    value     TEXT,
    sealed    BLOB,
    sealed_by BLOB CHECK (length(sealed_by) = 8), -- tells keys apart, and says nothing of one
    set_at    INTEGER NOT NULL,
    UNIQUE (tenant, name),
    CHECK ((value IS NULL) <> (sealed IS NULL)),
    CHECK ((sealed IS NULL) = (sealed_by IS NULL))
) STRICT;

CREATE INDEX settings_by_key ON settings (sealed_by) WHERE sealed_by IS NOT NULL;
