//go:build race

package schema

// raceDetector is on: it changes costs, and makes pools drop values.
const raceDetector = true
