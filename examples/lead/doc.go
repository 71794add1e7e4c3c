// Package lead is what the API instances and the workers of the example have in common: the wiring of a service, its
// configuration, its handlers, jobs and SQL. A service of your own has these in its own repository; start at Open.
package lead
