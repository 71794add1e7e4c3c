// Package pairs compares operations on a noisy machine. It runs them in turns, in many short rounds, so that whatever
// slows the machine down slows all of them; and it compares them round by round, so that what it slows is taken out.
package pairs
