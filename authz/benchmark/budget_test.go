package main

import (
	"strings"
	"testing"
	"time"
)

func TestBudgetTable(t *testing.T) {
	b := budget{
		config: config{pairs: 3, slice: time.Second, connections: 2},
		echo:   []float64{50, 100, 75},
		rows: []row{
			{"speed", []float64{0.7, 0.9, 0.8}, 0.85, true, ""},
			{"memory", []float64{31.04}, 32, false, " MB"},
		},
	}
	var table strings.Builder
	b.write(&table)
	for _, want := range []string{
		"| speed | 0.80 | 0.75 to 0.85 | ≥ 0.85 | missed |\n",
		"| memory | 31.0 MB | - | ≤ 32.0 MB | met |\n",
		"Raw Echo: 75 requests/s, quartiles 62 to 88, 50 to 100 in all: a spread of 50 %.\n",
	} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, table.String())
		}
	}
}

// The pairs run for a moment.
func TestBudgetHot(t *testing.T) {
	b := &budget{
		config: config{
			pairs: 1, slice: 50 * time.Millisecond, connections: 2, progress: t.Output(),
		},
		folder: t.TempDir(),
	}
	var err error
	if b.program, err = build(t.Context(), b.folder); err != nil {
		t.Fatal(err)
	}
	if b.issuer, err = issue("RS256"); err != nil {
		t.Fatal(err)
	}
	defer b.issuer.Close()
	b.genuine = mint(b.issuer, 1)
	if err := b.hot(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(b.rows) != 4 || len(b.echo) != 2 {
		t.Errorf("%d rows, %d slices of raw Echo, want 4 and 2", len(b.rows), len(b.echo))
	}
}
