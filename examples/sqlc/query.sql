-- name: CreateNote :one
INSERT INTO notes (body) VALUES ($1) RETURNING *;

-- name: GetNote :one
SELECT * FROM notes WHERE id = $1;

-- name: ListNotes :many
SELECT * FROM notes ORDER BY id DESC LIMIT $1;
