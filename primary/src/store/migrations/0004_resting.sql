-- What removed tenants have left: visitors' browsers may still hold what was at these. A port stays
-- here until it is given again, a name as long as it may rest.
CREATE TABLE freed_ports (
    port     INTEGER PRIMARY KEY CHECK (port BETWEEN 1 AND 65535),
    name     TEXT    NOT NULL,
    freed_at INTEGER NOT NULL
) STRICT;

CREATE TABLE freed_names (
    name     TEXT    PRIMARY KEY,
    freed_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Whether the token's text has the form by which functions are kept from seeing it. Of those that
-- an operator brought before this was asked, nobody knows.
ALTER TABLE tokens ADD COLUMN marked INTEGER NOT NULL DEFAULT 1;
UPDATE tokens SET marked = 0 WHERE adopted;
