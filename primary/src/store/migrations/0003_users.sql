-- The user of the operating system that a tenant's workers run as, where the host runs as root.
ALTER TABLE tenants ADD COLUMN user INTEGER;
CREATE UNIQUE INDEX tenants_by_user ON tenants (user) WHERE user IS NOT NULL;
