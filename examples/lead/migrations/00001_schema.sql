-- +goose Up
-- IF NOT EXISTS, because databases from before there were migrations have all of this. Partitions of "Event" are made by
-- Migrator.Up: they depend on the day.
SET LOCAL lock_timeout = '3s';

-- Quoted mixed case, as Prisma writes it: the platform that this example follows began there.
CREATE TABLE IF NOT EXISTS "Lead" (
    id         uuid PRIMARY KEY,
    name       text NOT NULL,
    email      text NOT NULL,
    product    text NOT NULL,
    score      integer,
    revision   integer NOT NULL DEFAULT 1,
    "createdAt" timestamptz NOT NULL DEFAULT now(),
    "updatedAt" timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS "Lead_createdAt_idx" ON "Lead" ("createdAt" DESC);

CREATE TABLE IF NOT EXISTS "Event" (
    id           uuid NOT NULL,
    "entityType" text NOT NULL,
    "entityId"   uuid NOT NULL,
    kind         text NOT NULL,
    timestamp    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (id, timestamp)
) PARTITION BY RANGE (timestamp);
CREATE INDEX IF NOT EXISTS "Event_entity_idx" ON "Event" ("entityType", "entityId", timestamp);

-- +goose Down
SET LOCAL lock_timeout = '3s';
DROP TABLE "Event";
DROP TABLE "Lead";
