//! Training sets.

use headwater_core::Result;

use super::features::{Features, select};
use crate::history::{EntityRows, HistoryOptions, HistoryRequest, JoinView, RequestedFeature, TrainingSet, join};
use crate::project::Project;

/// Joins features to entity rows as of their time.
pub(crate) async fn get_historical_features(
    project: &Project,
    entities: EntityRows,
    features: &Features,
    full_feature_names: bool,
    options: HistoryOptions,
) -> Result<TrainingSet> {
    let mut views: Vec<JoinView> = Vec::new();
    let mut requested = Vec::new();
    for selected in select(project, features, full_feature_names)? {
        let view = match views.iter().position(|joined| joined.view.name == selected.view.name) {
            Some(view) => view,
            None => {
                views.push(JoinView::open(project, &selected.view).await?);
                views.len() - 1
            }
        };
        let Some(feature) = selected.view.features.get(selected.feature) else { continue };
        requested.push(RequestedFeature { view, feature: feature.name.clone(), output: selected.name });
    }
    join(HistoryRequest { entities, views, features: requested, options }).await
}
