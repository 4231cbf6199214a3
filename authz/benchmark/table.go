package main

import (
	"fmt"
	"io"
	"runtime"
	"slices"
	"strconv"
	"time"
)

// writeTable writes medians of ratios to raw Echo, which is the first result, round by round.
func writeTable(w io.Writer, c config, results []result) {
	base := results[0].samples
	fmt.Fprintf(w, "%s, %s, %d connections, medians of %d rounds of %s for each server\n\n",
		time.Now().Format(time.DateOnly), runtime.Version(), c.connections, c.rounds, c.duration)
	fmt.Fprintln(w, "| server | requests/s | processor time | requests/s, every token new |")
	fmt.Fprintln(w, "|---|---|---|---|")
	for _, r := range results {
		fresh := "-"
		if r.samples[0].fresh > 0 {
			fresh = ratio(median(r.samples, func(i int) float64 {
				return r.samples[i].fresh / base[i].perSecond
			}))
		}
		perSecond := median(r.samples, func(i int) float64 {
			return r.samples[i].perSecond / base[i].perSecond
		})
		processor := median(r.samples, func(i int) float64 {
			return float64(r.samples[i].processor) / float64(base[i].processor)
		})
		fmt.Fprintf(w, "| %s | %s | %s | %s |\n",
			r.server.name, ratio(perSecond), ratio(processor), fresh)
	}

	var pace []float64
	busiest := 0.0
	for _, s := range base {
		pace = append(pace, s.perSecond)
		busiest = max(busiest, s.busy)
	}
	least, most := slices.Min(pace), slices.Max(pace)
	fmt.Fprintf(w, "\nRaw Echo: %.0f to %.0f requests/s in %d rounds, a spread of %.0f %%.\n",
		least, most, len(pace), 100*(most-least)/most)
	if busiest > 0.9 {
		fmt.Fprintf(w, "The load used up to %.0f %% of a core: it may limit the requests/s of the "+
			"fastest servers, but not their processor time.\n", 100*busiest)
	}
}

func ratio(r float64) string {
	if r >= 1 {
		return strconv.FormatFloat(r, 'f', 1, 64)
	}
	return strconv.FormatFloat(r, 'f', 2, 64)
}
