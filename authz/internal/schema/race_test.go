//go:build race

package schema

// raceDetector is on: costs are not those of a program, and pools drop what they are given.
const raceDetector = true
