package ormtest

import (
	"context"
	"errors"
	"testing"

	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"
)

type gormNote struct {
	ID   int64
	Text string
}

func (gormNote) TableName() string { return "notes" }

func TestGorm(t *testing.T) {
	for name, prepare := range map[string]bool{"plain": false, "with prepared statements": true} {
		t.Run(name, func(t *testing.T) {
			sqlDB, replica := settled(t)
			db, err := gorm.Open(postgres.New(postgres.Config{Conn: sqlDB}), &gorm.Config{Logger: logger.Discard, PrepareStmt: prepare})
			must(t, err)
			conforms(t, replica, mapper{
				migrate: func(ctx context.Context) error {
					return errors.Join(db.WithContext(ctx).AutoMigrate(&gormNote{}), db.WithContext(ctx).AutoMigrate(&gormNote{}))
				},
				create: func(ctx context.Context, text string) error {
					return db.WithContext(ctx).Create(&gormNote{Text: text}).Error
				},
				read: func(ctx context.Context) (texts []string, onReplica bool, err error) {
					err = db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
						var notes []gormNote
						if err := tx.Order("id").Find(&notes).Error; err != nil {
							return err
						}
						for _, n := range notes {
							texts = append(texts, n.Text)
						}
						return tx.Raw("select pg_is_in_recovery()").Scan(&onReplica).Error
					}, readOnly)
					return texts, onReplica, err
				},
				misplace: func(ctx context.Context) error {
					return db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
						return tx.Create(&gormNote{Text: "misplaced"}).Error
					}, readOnly)
				},
			})
			err = db.WithContext(within(t)).Transaction(func(tx *gorm.DB) error {
				_ = tx.Transaction(func(tx *gorm.DB) error { // a savepoint
					must(t, tx.Create(&gormNote{Text: "undone"}).Error)
					return errors.New("no")
				})
				return tx.Create(&gormNote{Text: "third"}).Error
			})
			must(t, err)
			var texts []string
			must(t, db.WithContext(within(t)).Model(&gormNote{}).Order("id").Pluck("text", &texts).Error)
			if len(texts) != 3 || texts[2] != "third" {
				t.Errorf("notes %q", texts)
			}
		})
	}
}
