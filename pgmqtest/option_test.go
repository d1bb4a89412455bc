package pgmqtest_test

import (
	"errors"
	"testing"

	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

func TestOptions(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		options []pgmqtest.Option
		want    map[string]string
	}{
		"none": {nil, map[string]string{
			"fsync": "off", "full_page_writes": "off", "synchronous_commit": "on", "max_connections": "500",
		}},
		"durable, and settings": {
			[]pgmqtest.Option{
				pgmqtest.Durable(),
				pgmqtest.Setting("WORK_MEM", "1MB"),
				pgmqtest.Setting("work_mem", "2MB"),
				pgmqtest.Setting("max_connections", "50"),
				pgmqtest.Setting("my.quote", `it's a \ backslash`),
			},
			map[string]string{
				"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on", "max_connections": "50",
				"work_mem": "2MB", "my.quote": `it's a \ backslash`,
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := pgmqtest.StartServer(t, test.options...).Empty(t)
			for parameter, want := range test.want {
				var got string
				err := db.Pool.QueryRow(t.Context(), `select current_setting($1::text)`, parameter).Scan(&got)
				if err != nil || got != want {
					t.Errorf("%s: got %q, %v; want %q", parameter, got, err, want)
				}
			}
		})
	}
}

func TestSettingError(t *testing.T) {
	t.Parallel()
	for _, refused := range []struct{ name, value string }{
		{"port", "5432"},
		{"Listen_Addresses", "*"},
		{"data_directory", "/"},
		{"", "x"},
		{"work_mem = '1MB'\nport", "1"},
		{"a.b.c", "x"},
		{"work_mem", "1MB\nport = 5432"},
		{"work_mem", "1\x00"},
	} {
		_, err := pgmqtest.Start(t.Context(), pgmqtest.Setting(refused.name, refused.value))
		var got *pgmqtest.SettingError
		if !errors.As(err, &got) || got.Value != refused.value || got.Rule == "" {
			t.Errorf("%q = %q: got error %v, want a SettingError", refused.name, refused.value, err)
		}
	}
}

// TestSettingUnknown: what only Postgres can judge fails with its words.
func TestSettingUnknown(t *testing.T) {
	t.Parallel()
	_, err := pgmqtest.Start(t.Context(), pgmqtest.Setting("work_mem", "plenty"))
	if err == nil || !containsAll(err.Error(), "work_mem", "plenty", "invalid value") {
		t.Errorf("got error %v, want Postgres's own words", err)
	}
}
