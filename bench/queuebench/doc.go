// Package queuebench measures package queue against the asynq that it is built on and against River.
package queuebench
