// Package pgmqtest gives every test a Postgres database of its own, with PGMQ installed, on a real server that
// is found or started by itself and leaves nothing behind.
package pgmqtest
