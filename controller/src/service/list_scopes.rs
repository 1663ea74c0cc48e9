//! List the scopes, by name, in pages.

use std::ops::Bound;

use common::ScopeName;
use proto::v1;

use crate::service::page::{PageRequest, name_token};
use crate::service::{ControllerService, ServiceError};
use crate::settings::PAGE_ITEMS_DEFAULT;

const KIND: &str = "scopes";

impl ControllerService {
    pub(super) async fn list_scopes(
        &self,
        request: v1::ListScopesRequest,
    ) -> Result<v1::ListScopesResponse, ServiceError> {
        let page = PageRequest::new(request.page, PAGE_ITEMS_DEFAULT)?;
        let after: Bound<ScopeName> = page.after_name(KIND)?;
        let most = page.size + 1;
        let names = self.query(move |machine| {
            let scopes = machine.scopes().range((after, Bound::Unbounded)).take(most);
            scopes.map(|(name, _)| name.to_string()).collect::<Vec<_>>()
        });
        let page = page.cut(names.await?, |last, _| name_token(KIND, last));
        Ok(v1::ListScopesResponse { scopes: page.items, next_token: page.next_token })
    }
}
