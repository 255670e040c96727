-- Who changed what. Rows are added in the transaction of the change that they tell, and go by age and
-- number alone. `kind` is by what it was done: token, host or command_line; of a token, `actor` is
-- its id, and `name` what it was called then. A removed tenant's rows keep its name.
CREATE TABLE audit (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    at          INTEGER NOT NULL,
    kind        TEXT    NOT NULL,
    actor       INTEGER,
    name        TEXT    NOT NULL,
    tenant      INTEGER REFERENCES tenants (id) ON DELETE SET NULL,
    tenant_name TEXT,
    action      TEXT    NOT NULL,
    object      TEXT,
    before      TEXT,    -- JSON, an object: what of it was other than afterwards
    after       TEXT,
    request_id  TEXT,
    CHECK ((kind = 'token') = (actor IS NOT NULL)),
    CHECK (tenant IS NULL OR tenant_name IS NOT NULL)
) STRICT;

CREATE INDEX audit_by_tenant ON audit (tenant);
CREATE INDEX audit_by_name ON audit (tenant_name);
CREATE INDEX audit_by_action ON audit (action);
CREATE INDEX audit_by_time ON audit (at);
