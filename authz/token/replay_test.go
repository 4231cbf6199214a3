package token

import (
	"testing"
	"time"
)

// TestPassedMinutes: steps of the clock, and of real time, between the uses of proofs.
func TestPassedMinutes(t *testing.T) {
	const stored = 2*defaultWindow + maxLeeway
	start := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	for name, steps := range map[string][]struct {
		clock, real time.Duration // since the last step
		passed      bool
	}{
		"correct":          {{}, {1, 1, false}, {time.Hour, time.Hour, false}},
		"slow":             {{}, {time.Second, time.Minute, false}},
		"back by seconds":  {{}, {-5 * time.Second, 1, false}},
		"back while idle":  {{}, {0, stored + time.Minute, true}, {time.Hour, 1, false}},
		"back":             {{}, {time.Hour, time.Hour, false}, {-10 * time.Minute, 1, true}},
		"back, on a day":   {{}, {23 * time.Hour, 23 * time.Hour, false}, {-22 * time.Hour, 1, true}},
		"ahead, and right": {{}, {2 * time.Hour, 1, false}, {-2 * time.Hour, 1, true}},
		"ahead, and later": {{}, {2 * time.Hour, 1, false}, {-90 * time.Minute, 1, false}},
		"ahead again": {{}, {2 * time.Hour, 1, false}, {-time.Hour, 1, false},
			{2 * time.Hour, 1, false}, {-3 * time.Hour, 1, true}},
		"years": {{}, {20 * 365 * 24 * time.Hour, 1, false}, {-time.Hour, 1, false}},
	} {
		var p passedMinutes
		now := start
		for i, step := range steps {
			now, p.at = now.Add(step.clock), p.at.Add(-step.real)
			if i == 0 {
				p.at = time.Time{}
			}
			if got := p.passed(now, now.Add(stored), 5*time.Minute); got != step.passed {
				t.Errorf("%s, step %d: %t, want %t", name, i, got, step.passed)
			}
		}
	}
}
