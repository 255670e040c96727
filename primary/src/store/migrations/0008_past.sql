-- What a tenant served in its earlier generations, told by what changed: a row holds from its
-- generation until the next row of its path.
CREATE TABLE past_functions (
    tenant  INTEGER NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    folded  TEXT    NOT NULL,
    since   INTEGER NOT NULL CHECK (since > 0),
    path    TEXT    NOT NULL,
    version INTEGER CHECK (version > 0), -- null where none of its own served
    hidden  INTEGER NOT NULL CHECK (hidden IN (0, 1)), -- what is bundled there was removed
    gone    INTEGER NOT NULL DEFAULT 0 CHECK (gone IN (0, 1)), -- forgotten since, with its versions
    PRIMARY KEY (tenant, folded, since)
) STRICT, WITHOUT ROWID;

CREATE TABLE past_options (
    tenant  INTEGER NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    folded  TEXT    NOT NULL,
    since   INTEGER NOT NULL CHECK (since > 0),
    path    TEXT    NOT NULL,
    options TEXT    NOT NULL, -- JSON, what was set for the function
    PRIMARY KEY (tenant, folded, since)
) STRICT;

-- Whether these two tables say what it served.
ALTER TABLE generations ADD COLUMN known INTEGER NOT NULL DEFAULT 0;

-- Of those before, nobody kept it but for the one that serves.
UPDATE generations SET known = 1
    WHERE generation = (SELECT generation FROM tenants WHERE id = generations.tenant);

INSERT INTO past_functions (tenant, folded, since, path, version, hidden)
    SELECT tenant, folded, generation, path, active, hidden_at IS NOT NULL
    FROM functions JOIN tenants ON tenants.id = tenant
    WHERE generation > 0 AND (active IS NOT NULL OR hidden_at IS NOT NULL);

INSERT INTO past_options (tenant, folded, since, path, options)
    SELECT tenant, folded, generation, path, options
    FROM functions JOIN tenants ON tenants.id = tenant
    WHERE generation > 0 AND options <> '{}';
