-- Options in three layers, each as written: what the module declares, over that what came with
-- the upload, over that what was set since, which stays with the function through uploads.
ALTER TABLE versions RENAME COLUMN options TO declared;
ALTER TABLE versions ADD COLUMN uploaded TEXT NOT NULL DEFAULT '{}';
ALTER TABLE functions ADD COLUMN options TEXT NOT NULL DEFAULT '{}';

-- JSON, an object from name to number: what is missing has its default.
ALTER TABLE tenants ADD COLUMN limits TEXT NOT NULL DEFAULT '{}';
